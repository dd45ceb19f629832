"""How long a stack is unavailable during a restore, against the seed's order of steps.

    python benchmarks/restore_downtime.py [MEGABYTES [POINTS [ROUNDS]]]    (as root)

Measured with the live tests' setup: real engine, real InfluxDB. From the stop of the first
container until all run and InfluxDB holds its data. Both ways have their archives on the machine.
"""

import os
import shutil
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tests/live"))
import corpus
import pairs
from stand import SERVICES, Stand, compose, fresh_iotstack, wait_ping, write_points

FORM = "{{.TimeNano}} {{.Actor.Attributes.name}} {{.Action}}"
STOPS = ("kill", "stop", "die")


def fill(pi, top, megabytes, points):
    """Give the stack small files and databases, and InfluxDB points in many shards."""
    made = top.parent / "corpus"
    corpus.make(str(made), megabytes=megabytes)
    for folder in ("nodered", "zigbee2mqtt", "home_assistant"):
        target = top / "volumes" / folder / "corpus"
        shutil.move(made / "volumes" / folder, target)
    for start in range(0, points, 20_000):
        lines = [
            f"cpu,room=r{n % 50} value={n * 0.37} {n * 600}000000000"
            for n in range(start, min(start + 20_000, points))
        ]
        write_points(pi, "home", *lines)


def timed(pi, act):
    """Return the seconds from the first stop to the last start, or to the end that `act` tells."""
    before = time.time()
    end = act() or 0
    words = ["docker", "events", "--since", f"{before:.3f}", "--until", f"{time.time():.3f}"]
    told = pi.run([*words, "--filter", "type=container", "--format", FORM]).stdout
    events = [line.split(" ", 2) for line in told.splitlines()]
    mine = [(int(at) / 1e9, action) for at, name, action in events if name in SERVICES]
    first = min(at for at, action in mine if action in STOPS)
    return max(end, *(at for at, action in mine if action == "start")) - first


def ours(pi):
    """Restore with the program."""
    words = (sys.executable, "-m", "iotstack_invoke", "restore", "--from", "here", "--yes")
    pi.run([*words, "--runtag", "bench"], timeout=900)


def seed(pi, top):
    """Restore in the seed's order; it does not wait for InfluxDB, which would lose all points."""
    stage, db = top / "restore", top / "backups/influxdb/db"
    (stage / "general").mkdir(parents=True)
    archive = top / "backups/bench.general-backup.tar.gz"
    pi.run(
        ["tar", "-x", "--same-owner", "-z", "-f", archive, "-C", stage / "general"], timeout=900
    )
    compose(pi, "down")
    pi.run(["rm", "-rf", "./services", "./volumes"], cwd=top)
    for name in ("services", "volumes"):
        pi.run(["mv", stage / "general" / name, top])
    pi.run(["tar", "-xf", top / "backups/bench.influx-backup.tar", "-C", db])
    compose(pi, "up", "-d")
    wait_ping(pi)
    load = ["influxd", "restore", "-portable", "/var/lib/influxdb/backup"]
    pi.run(["docker", "exec", "influxdb", *load], timeout=900)
    end = time.time()
    pi.run(["sh", "-c", f"rm -rf {stage} {db}/*"])
    return end


def main():
    megabytes, points, rounds = (*map(int, sys.argv[1:]), *(60, 200_000, 3)[len(sys.argv) - 1 :])
    with Stand() as stand:
        pi = stand.pi
        top = fresh_iotstack(pi)
        fill(pi, top, megabytes, points)
        backup = (sys.executable, "-m", "iotstack_invoke", "backup", "--runtag", "bench")
        pi.run(backup, timeout=900)
        compare(
            pi, {"ours": lambda: ours(pi), "the seed's order": lambda: seed(pi, top)}, rounds, top
        )


def compare(pi, ways, rounds, top):
    """Measure both ways in turn, and print how long each left the stack away, and the ratio."""
    found = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first is to warm up
        for name, act in ways.items():
            away = timed(pi, act)
            wait_ping(pi)
            if number:
                found[name].append(away)
            pi.run(["sh", "-c", f"rm -rf {top}/restore"])
    print("| way | away s, median (min … max) |\n|---|---|")
    for name, times in found.items():
        low, high = min(times), max(times)
        print(f"| {name} | {statistics.median(times):.2f} ({low:.2f} … {high:.2f}) |")
    ratio = statistics.median(a / b for a, b in zip(*found.values(), strict=True))
    print(f"ours / the seed's order: {ratio:.3f}{pairs.verdict(ratio, 1.0)}")


if __name__ == "__main__":
    main()
