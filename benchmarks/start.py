"""The time until a command begins to work, against an `inv` task that does nothing.

    python benchmarks/start.py

The reach: `inv --list` + 60 ms, `inv backup --dry-run` + 80 ms.
decisions/0025-what-a-start-may-import.md explains why a dry run takes longer: half of that time is
the code itself.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import pairs
from contexts import LittleStack

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top, contextlib.chdir(top):
        stack = LittleStack(Path(top))
        (Path(top) / "tasks.py").write_text(
            "from invoke import task\n\n\n@task\ndef empty(c):\n    pass\n"
        )

        def run(*words, folder=top):
            return lambda: subprocess.run(
                (sys.executable, "-m", "invoke", *words),
                check=True,
                cwd=folder,
                env=stack.environment,
                stdout=subprocess.DEVNULL,
            )

        empty = ("an empty inv task", run("empty"))
        for words, more_s in ((("--list",), 0.06), (("backup", "--dry-run"), 0.08)):
            ours = (f"inv {' '.join(words)}", run(*words, folder=CHECKOUT))
            pairs.compare(ours, empty, rounds=15, more_s=more_s)


main()
