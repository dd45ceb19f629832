"""How long InfluxDB is unavailable during a reload, against the seed's order of steps.

    python benchmarks/reload_downtime.py [POINTS [ROUNDS]]    (as root)

Measured with the live tests' setup: real engine, real InfluxDB. From the stop of InfluxDB until it
runs and holds its data. decisions/0011-a-reload-stops-influxdb-alone.md explains where each second
goes. The seed stops the whole stack; we stop only InfluxDB, and verify the loaded data.
"""

import sys
import time

from restore_downtime import compare, fill

from stand import Stand, compose, fresh_iotstack, wait_ping  # isort: skip - the path is set above


def ours(pi):
    """Reload with the program; the old data are removed afterwards."""
    words = (
        sys.executable,
        "-m",
        "iotstack_invoke",
        "reload-influxdb",
        "--yes",
        "--keep-old",
        "0",
    )
    pi.run(words, timeout=900)


def seed(pi, top):
    """Reload in the seed's order; it does not wait for InfluxDB, which would lose all points."""
    db = top / "backups/influxdb/db"
    pi.run(["sh", "-c", f"rm -rf {db}/*"])
    inside = "/var/lib/influxdb/backup"
    pi.run(["docker", "exec", "influxdb", "influxd", "backup", "-portable", inside], timeout=900)
    compose(pi, "down")
    pi.run(["rm", "-rf", top / "volumes/influxdb/data"])
    compose(pi, "up", "-d")
    wait_ping(pi)
    pi.run(["docker", "exec", "influxdb", "influxd", "restore", "-portable", inside], timeout=900)
    return time.time()


def main():
    points, rounds = (*map(int, sys.argv[1:]), *(500_000, 5)[len(sys.argv) - 1 :])
    with Stand() as stand:
        pi = stand.pi
        top = fresh_iotstack(pi)
        fill(pi, top, 1, points)
        compare(
            pi, {"ours": lambda: ours(pi), "the seed's order": lambda: seed(pi, top)}, rounds, top
        )


if __name__ == "__main__":
    main()
