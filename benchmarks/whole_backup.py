"""A whole backup with a vault over SSH, against the seed's order: `tar -czf`, then `scp`.

    python benchmarks/whole_backup.py [MEGABYTES …]

The reach: wall ≤ 0.20. All ways are whole processes. The vault is an sshd on this machine, which
shares its processors and its disk; Docker is a script without containers. A bare pipe (tar, ISA-L,
tee, ssh) shows the limit: it copies no database, syncs nothing and verifies nothing. The seconds
of the rules are those of the last run. The rest of the time is the start, and the inspection of
the stack and of the vault.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
import pairs
from line import address, far_vault, scp_words, ssh_words

ENDED = re.compile(r"(\w+): done after ([0-9.]+) s")


def main():
    for megabytes in map(int, sys.argv[1:] or (200, 1000)):
        print(f"{megabytes} MB:")
        with far_vault(megabytes) as context:
            measure(context)


def measure(context):
    """Print how long a backup takes, what of it each rule takes, and what the rivals take."""
    numbers = itertools.count()

    def ours():
        context.run(f"backup --runtag r{next(numbers)}")

    def seed():
        archive = f"{context.top}/seed{next(numbers)}.tar.gz"
        members = ("./docker-compose.yml", "./services", "./volumes")
        subprocess.run(["tar", "-czf", archive, "-C", context.stack.folder, *members], check=True)
        send = (*scp_words(context.login), archive, address(context.login, f"{context.vault}/"))
        subprocess.run(send, check=True)

    def bare():
        archive = f"bare{next(numbers)}.tar.gz"
        tar = f"tar -cf - -C {context.stack.folder} ./docker-compose.yml ./services ./volumes"
        pack = f"{sys.executable} -m isal.igzip -2"
        send = shlex.join((*ssh_words(context.login), f"cat > {context.vault}/{archive}"))
        pipe = f"{tar} | {pack} | tee {context.top}/{archive} | {send}"
        subprocess.run(pipe, shell=True, check=True)

    pairs.compare(
        ("inv backup", ours), ("tar -czf, then scp", seed), rounds=3, reach={"wall": 0.2}
    )
    logs = context.stack.folder.glob("backups/*.backup-log.txt")
    log = max(logs, key=lambda path: path.stat().st_mtime).read_text()
    print("of it", ", ".join(f"{rule} {s} s" for rule, s in ENDED.findall(log)))
    pairs.compare(("inv backup", ours), ("a bare pipe", bare), rounds=3)


main()
