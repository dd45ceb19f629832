"""How much memory and time a backup takes, all processes together, from small stacks to large.

    python benchmarks/memory.py [MEGABYTES …]

The reach: ≤ 100 MiB, whatever the size of the stack; the time grows with the stack. The vault is
an sshd on this machine. The proportional set size (PSS) of the whole process tree is read twenty
times a second; memory that several processes share counts once. If GNU tar is given more than one
name, it keeps the name of each file (create.c, trivial_link_count). It does so for the seed too,
whose tar is measured alone. Everything else is flat. 1 GB of this stack is 42,000 files.
"""

import contextlib
import os
import statistics
import subprocess
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


def peaks_mib(process):
    """Return the most that a process and all below it took at once, and the most of a tar."""
    peak = tar_peak = 0
    while process.poll() is None:
        found = {pid: pss_bytes(pid) for pid in (process.pid, *offspring(process.pid))}
        peak = max(peak, sum(found.values()))
        tar_peak = max([tar_peak, *(size for pid, size in found.items() if is_tar(pid))])
        time.sleep(0.05)
    return peak / 2**20, tar_peak / 2**20


def is_tar(pid):
    """Tell whether a process is GNU tar."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="ascii") as stream:
        return stream.read() == "tar\n"
    return False


def seed_mib(folder):
    """Return the most that the seed's tar takes."""
    words = ("tar", "-cf", "-", "-C", folder, "./docker-compose.yml", "./services", "./volumes")
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE) as tar,
        subprocess.Popen(("cat",), stdin=tar.stdout, stdout=subprocess.DEVNULL),
    ):
        return peaks_mib(tar)[0]


def main():
    print("| stack | peak MiB | without tar | tar alone | the seed's tar | wall s |")
    print("|---|---|---|---|---|---|")
    sizes_gb, rests_mib, walls_s, most_mib = [], [], [], 0.0
    for megabytes in map(int, sys.argv[1:] or ("1000", "2000", "4000", "8000")):
        with far_vault(megabytes) as context:
            begun = time.perf_counter()
            process = context.stack.start("backup --runtag r")
            peak, tar = peaks_mib(process)
            walls_s.append(time.perf_counter() - begun)
            assert process.returncode == 0, process.stderr.read()
            seed = seed_mib(context.stack.folder)
        sizes_gb.append(megabytes / 1000)
        rests_mib.append(peak - tar)
        most_mib = max(most_mib, peak)
        found = (peak, rests_mib[-1], tar, seed)
        told = " | ".join(f"{each:.0f}" for each in found)
        print(f"| {megabytes:,} MB | {told} | {walls_s[-1]:.1f} |")
    print(f"The highest peak: {most_mib:.0f} MiB{pairs.verdict(most_mib, REACH_MIB)}")
    if len(sizes_gb) > 1:
        print(f"Without tar: {min(rests_mib):.0f} to {max(rests_mib):.0f} MiB")
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
