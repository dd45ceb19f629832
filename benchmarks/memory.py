"""What memory and time a backup takes, all processes together, from small stacks to large ones.

    python benchmarks/memory.py [MEGABYTES …]

The reach: ≤ 100 MiB, flat; the time grows as the stack does. The vault is an sshd on this
machine. The proportional set size (PSS) of the whole process tree is read
twenty times a second; what several processes share counts once.
"""

import contextlib
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from line import far_vault
from sshd import offspring


def pss_bytes(pid):
    """Return what a process takes, 0 where it has ended (proc_pid_smaps(5), smaps_rollup)."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream,
    ):
        for line in stream:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def peak_bytes(process):
    """Return the most that a process and all below it took at once, until it ends."""
    peak = 0
    while process.poll() is None:
        pids = (process.pid, *offspring(process.pid))
        peak = max(peak, sum(map(pss_bytes, pids)))
        time.sleep(0.05)
    return peak


def main():
    print("| stack | peak MiB | wall s | s a GB |\n|---|---|---|---|")
    for megabytes in map(int, sys.argv[1:] or ("1000", "2000", "4000", "8000")):
        with far_vault(megabytes) as scene:
            begun = time.perf_counter()
            process = scene.stack.start("backup --runtag r")
            peak = peak_bytes(process)
            wall_s = time.perf_counter() - begun
            assert process.returncode == 0, process.stderr.read()
            per_gb_s = wall_s / megabytes * 1000
            print(f"| {megabytes:,} MB | {peak / 2**20:.0f} | {wall_s:.1f} | {per_gb_s:.1f} |")


main()
