"""A whole backup with a vault over SSH, against the seed's order: `tar -czf`, then `scp`.

    python benchmarks/whole_backup.py [MEGABYTES]

The reach: wall ≤ 0.20. Both are whole processes; the vault is an sshd on this machine, and Docker
a script that knows no container.
"""

import itertools
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
import pairs
from line import address, far_vault, scp_words


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with far_vault(megabytes) as scene:
        numbers = itertools.count()

        def ours():
            scene.run(f"backup --runtag r{next(numbers)}")

        def seed():
            archive = f"{scene.top}/seed{next(numbers)}.tar.gz"
            members = ("./docker-compose.yml", "./services", "./volumes")
            subprocess.run(
                ["tar", "-czf", archive, "-C", scene.stack.folder, *members], check=True
            )
            send = (*scp_words(scene.login), archive, address(scene.login, f"{scene.vault}/"))
            subprocess.run(send, check=True)

        pairs.compare(("inv backup", ours), ("tar -czf, then scp", seed), rounds=3)


main()
