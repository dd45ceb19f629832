"""A restore from a vault over SSH (fetch, check, unpack, swap) against `scp` and `tar -xzf`.

    python benchmarks/restore_whole.py [MEGABYTES]

The reach: wall ≤ 1.1, although everything is checked first. A second of it is the start and the
look at the stack, whatever its size; the rest is told by the rival that checks with plain tools.
Both are whole processes; no container runs. Nothing is removed in between: ext4 passes over each
inode that was freed in the last minutes, so files are made ten times slower then.
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
