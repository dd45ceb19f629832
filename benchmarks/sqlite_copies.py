"""What copies of SQLite files cost: the general part with and without them, and a writer's delay.

    python benchmarks/sqlite_copies.py [MEGABYTES …]

A writer commits a row every 50 ms into the database that is copied. The table shows its longest
commit before the copy and during it.
"""

import contextlib
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import corpus
import pairs
from context import Context

from iotstack_invoke.archives.pack import PackStack, tar_words
from iotstack_invoke.databases.sqlite.files import COPIES, CopySqlite
from iotstack_invoke.engine.steps import File
from iotstack_invoke.hosts.local import LocalHost

ROUNDS = 5
WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], timeout=600)
while True:
    begun = time.monotonic()
    database.execute("INSERT INTO t (x) VALUES ('row')")
    database.commit()
    ended = time.monotonic()
    print(begun, ended - begun, flush=True)
    time.sleep(0.05)
"""


def make(path, megabytes, mode):
    """Make a database of about that size whose content deflates a little."""
    chance = random.Random(7)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
        rows = ((chance.randbytes(300).hex() + "x" * 400,) for _ in range(megabytes * 1000))
        database.executemany("INSERT INTO t (x) VALUES (?)", rows)


def cost(top, folder, members):
    """Return the seconds without and with copies, and their ratio, medians of one run."""
    output = File("pi", "out.tar.gz", top)
    tar = tar_words((), folder)
    copies = f"{folder}/{COPIES}"
    plain = PackStack(output, tar, members, 3600)
    steps = (
        CopySqlite("pi", folder, members, (), copies, ()),
        PackStack(output, tar, members, 3600, 0, copies),
    )

    def with_copies():
        for step in steps:
            step.do(Context(LocalHost(folder)))
        steps[0].undo(LocalHost(folder))

    walls = []
    for each in range(ROUNDS + 1):
        pair = [
            pairs.measure(act)[0]
            for act in (lambda: plain.do(Context(LocalHost(folder))), with_copies)
        ]
        if each:  # the first is for the caches
            walls.append(pair)
    medians = [statistics.median(pair[way] for pair in walls) for way in (0, 1)]
    return *medians, statistics.median(slow / fast for fast, slow in walls)


def stall(folder, path):
    """Return a writer's longest commit before and during a copy, and how long that took."""
    copies = f"{folder}/{COPIES}"
    step = CopySqlite("pi", folder, ("./volumes",), (), copies, ())
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    )
    try:
        time.sleep(2)
        begun = time.monotonic()
        step.do(Context(LocalHost(folder)))
        took = time.monotonic() - begun
        time.sleep(1)
    finally:
        writer.terminate()
        said = writer.communicate()[0]
        step.undo(LocalHost(folder))
    times = [tuple(map(float, line.split())) for line in said.splitlines()]
    before = max(each for at, each in times if at + each < begun)
    during = max(each for at, each in times if at + each >= begun)
    return before, during, took


def main():
    sizes = [int(each) for each in sys.argv[1:]] or [1, 50, 200]
    print(
        "| SQLite | plain s | with copies s | ratio | mode | copy s "
        "| longest commit, ms: before | during |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for megabytes in sizes:
        for mode in ("DELETE", "WAL"):
            with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
                folder = f"{top}/IOTstack"
                corpus.make(folder, megabytes=60)
                os.unlink(f"{folder}/volumes/home_assistant/home-assistant_v2.db")
                os.mkdir(f"{folder}/backups")
                path = f"{folder}/volumes/home_assistant/x.db"
                make(path, megabytes, mode)
                members = ("./docker-compose.yml", "./services", "./volumes")
                plain, copied, ratio = cost(top, folder, members)
                before, during, took = stall(folder, path)
                print(
                    f"| {megabytes} MB | {plain:.2f} | {copied:.2f} | {ratio:.2f} | {mode} "
                    f"| {took:.2f} | {before * 1000:.0f} | {during * 1000:.0f} |"
                )


main()
