"""What memory and time a backup takes, all processes together, from small stacks to large ones.

    python benchmarks/memory.py [MEGABYTES …]

The reach: ≤ 100 MiB, flat; the time grows as the stack does. The vault is an sshd on this
machine. The proportional set size (PSS) of the whole process tree is read
twenty times a second; what several processes share counts once.
"""

import contextlib
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
import pairs
from line import far_vault
from sshd import offspring

REACH_MIB = 100


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
    print("| stack | peak MiB | wall s |\n|---|---|---|")
    sizes_gb, peaks_mib, walls_s = [], [], []
    for megabytes in map(int, sys.argv[1:] or ("1000", "2000", "4000", "8000")):
        with far_vault(megabytes) as scene:
            begun = time.perf_counter()
            process = scene.stack.start("backup --runtag r")
            peak = peak_bytes(process)
            walls_s.append(time.perf_counter() - begun)
            assert process.returncode == 0, process.stderr.read()
        sizes_gb.append(megabytes / 1000)
        peaks_mib.append(peak / 2**20)
        print(f"| {megabytes:,} MB | {peaks_mib[-1]:.0f} | {walls_s[-1]:.1f} |")
    most = max(peaks_mib)
    print(f"The highest peak: {most:.0f} MiB{pairs.verdict(most, REACH_MIB)}")
    if len(sizes_gb) > 1:
        line = statistics.linear_regression(sizes_gb, walls_s)
        off = max(
            abs(wall / (line.intercept + line.slope * size) - 1)
            for size, wall in zip(sizes_gb, walls_s, strict=True)
        )
        print(
            f"The time: {line.intercept:.1f} s, and {line.slope:.1f} s for each GB; "
            f"no row is off this line by more than {100 * off:.0f} %"
        )


main()
