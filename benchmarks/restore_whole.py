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

sys.path.insert(0, os.path.dirname(__file__))
import pairs
from line import address, far_vault, scp_words


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with far_vault(megabytes) as scene:
        numbers = itertools.count()
        name = "r.general-backup.tar.gz"

        def ours():
            scene.run("restore --runtag r --from nas --yes")
            shutil.rmtree(scene.stack.folder / "restore")

        def plain():
            folder = f"{scene.top}/plain{next(numbers)}"
            os.mkdir(folder)
            there = address(scene.login, f"{scene.vault}/{name}")
            subprocess.run((*scp_words(scene.login), there, folder), check=True)
            subprocess.run(["tar", "-xzf", f"{folder}/{name}", "-C", folder], check=True)
            shutil.rmtree(folder)

        scene.run("backup --runtag r")
        pairs.compare(("inv restore", ours), ("scp, then tar -xzf", plain), rounds=3)


main()
