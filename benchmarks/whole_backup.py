"""A whole backup with a vault over SSH, against the seed's order: `tar -czf`, then `scp`.

    python benchmarks/whole_backup.py [MEGABYTES]

The reach: wall ≤ 0.20. Both are whole processes; the vault is an sshd on this machine, and Docker
a script that knows no container.
"""

import itertools
import os
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
            told = stack.run(f"backup --runtag r{next(numbers)}", limit_s=3600)
            assert told.returncode == 0, told.stderr

        def seed():
            archive = f"{top}/seed{next(numbers)}.tar.gz"
            members = ("./docker-compose.yml", "./services", "./volumes")
            subprocess.run(["tar", "-czf", archive, "-C", stack.folder, *members], check=True)
            send = (*scp_words(login), archive, address(login, f"{vault}/"))
            subprocess.run(send, check=True)

        try:
            pairs.compare(("inv backup", ours), ("tar -czf, then scp", seed), rounds=3)
        finally:
            server.stop()


main()
