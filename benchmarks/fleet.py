"""One backup on each of many hosts: several at once against one after the other.

    python benchmarks/fleet.py [HOSTS …]

Each host is a separate sshd with a small stack behind it, all on this machine. So this measures
how well the waiting times overlap, not how fast a Pi is.
"""

import functools
import itertools
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import pairs
from remote_stacks import Laptop, Pi
from sshd import Sshd


def main():
    counts = [int(each) for each in sys.argv[1:]] or [1, 5, 10, 20]
    running = []
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        base = Path(top)

        def start(name, **given):
            running.append(Sshd(base / name, **given))
            return running[-1]

        pis = [Pi(base / f"pi{n}", start, f"pi{n}") for n in range(max(counts))]
        numbers = itertools.count()

        def back_up(laptop, at_once):
            told = laptop.run(
                f"backup --hosts all --at-once {at_once} --runtag r{next(numbers)}", limit_s=3600
            )
            assert told.returncode == 0, told.stdout + told.stderr

        try:
            print("| hosts | 8 at once: wall s | CPU s | one by one: wall s | ratio |")
            print("|---|---|---|---|---|")
            for count in counts:
                laptop = Laptop(base / f"laptop{count}", *pis[:count], vaults=())
                wall_s, cpu_s = pairs.measure(functools.partial(back_up, laptop, 8))
                each_s, _ = pairs.measure(functools.partial(back_up, laptop, 1))
                print(
                    f"| {count} | {wall_s:.1f} | {cpu_s:.1f} | {each_s:.1f} "
                    f"| {wall_s / each_s:.2f} |"
                )
        finally:
            for each in running:
                each.stop()


main()
