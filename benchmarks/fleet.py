"""One backup on each of many hosts: side by side against one after the other.

    python benchmarks/fleet.py [HOSTS]

Each host is an sshd of its own with a little stack behind it, all on this machine: what is
measured is how well the waiting overlaps, not how fast a Pi is.
"""

import itertools
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import pairs
from far import Laptop, Pi
from sshd import Sshd


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    running = []
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        base = Path(top)

        def start(name, **given):
            running.append(Sshd(base / name, **given))
            return running[-1]

        pis = [Pi(base / f"pi{n}", start, f"pi{n}") for n in range(count)]
        laptop = Laptop(base / "laptop", *pis, vaults=())
        numbers = itertools.count()

        def back_up(at_once):
            told = laptop.run(
                f"backup --hosts all --at-once {at_once} --runtag r{next(numbers)}", limit_s=3600
            )
            assert told.returncode == 0, told.stdout + told.stderr

        try:
            found = {n: pairs.measure(lambda n=n: back_up(n)) for n in (8, 1)}
            for at_once, (wall_s, cpu_s) in found.items():
                print(f"{count} hosts, {at_once} at once: {wall_s:.1f} s wall, {cpu_s:.1f} s CPU")
            print(f"8 at once / one by one, wall: {found[8][0] / found[1][0]:.3f}")
        finally:
            for each in running:
                each.stop()


main()
