"""A restore from a vault over SSH (fetch, check, unpack, swap) against `scp` and `tar -xzf`.

    python benchmarks/restore_whole.py [MEGABYTES]

The reach: wall ≤ 1.1, although everything is checked first. Both are whole processes; no
container runs.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import corpus
import pairs
from line import address, scp_words, vault_text
from scenes import LittleStack
from sshd import Sshd


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        stack, server = LittleStack(Path(top)), Sshd(Path(top) / "sshd")
        corpus.make(str(stack.folder), megabytes=megabytes)
        login, vault = server.login(), Path(top) / "vault"
        vault.mkdir()
        with stack.settings.open("a") as stream:
            stream.write(vault_text(login, vault))
        numbers = itertools.count()

        def ours():
            told = stack.run("restore --runtag r --from nas --yes", limit_s=3600)
            assert told.returncode == 0, told.stderr
            shutil.rmtree(stack.folder / "restore")

        def plain():
            folder = f"{top}/plain{next(numbers)}"
            os.mkdir(folder)
            name = "r.general-backup.tar.gz"
            fetch = (*scp_words(login), address(login, f"{vault}/{name}"), folder)
            subprocess.run(fetch, check=True)
            subprocess.run(["tar", "-xzf", f"{folder}/{name}", "-C", folder], check=True)
            shutil.rmtree(folder)

        try:
            told = stack.run("backup --runtag r", limit_s=3600)
            assert told.returncode == 0, told.stderr
            pairs.compare(("inv restore", ours), ("scp, then tar -xzf", plain), rounds=3)
        finally:
            server.stop()


main()
