"""A restore from a vault over SSH (fetch, check, unpack, swap) against `scp` and `tar -xzf`.

    python benchmarks/restore_whole.py [MEGABYTES]

The reach: wall ≤ 1.1, although everything is checked first. About one second goes to the start and
to the inspection of the stack, whatever its size. The rival that checks with plain tools explains
the rest. Both ways are whole processes; no container runs. Nothing is removed between the rounds:
ext4 does not reuse an inode that was freed in the last minutes, and making files is then ten times
slower.
"""

import functools
import itertools
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
import pairs
from line import address, far_vault, scp_words


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with far_vault(megabytes) as context:
        numbers = itertools.count()
        name = "r.general-backup.tar.gz"

        def ours():
            context.run("restore --runtag r --from nas --yes")

        def plain(*, checked=False):
            folder = f"{context.top}/plain{next(numbers)}"
            os.mkdir(folder)
            there = address(context.login, f"{context.vault}/{name}")
            unpack = ["tar", "-xzf", f"{folder}/{name}", "-C", folder]
            check = (["sha256sum", f"{folder}/{name}"], ["tar", "-tvzf", f"{folder}/{name}"])
            sync = ["sync", "--file-system", folder]
            for words in (
                [*scp_words(context.login), there, folder],
                *(check if checked else ()),
                unpack,
                *((sync,) if checked else ()),
            ):
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

        context.run("backup --runtag r")
        pairs.compare(
            ("inv restore", ours), ("scp, then tar -xzf", plain), rounds=3, reach={"wall": 1.1}
        )
        checked = functools.partial(plain, checked=True)
        pairs.compare(
            ("inv restore", ours), ("the same with sha256sum, tar -t and sync", checked), rounds=3
        )


main()
