"""A list of 10,000 sets against an `inv` task that does nothing.

    python benchmarks/list_sets.py [SETS]

The reach: + 1 s. No archive is opened; each manifest is read and checked. The second rival does
only what every list must do: it stats each file, reads and parses each manifest, and checks
nothing. Only a summary that is kept between two lists could be faster, and it would have to be
verified each time.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta

sys.path.insert(0, os.path.dirname(__file__))
import pairs

from iotstack_invoke.backups.manifest import LeftOut, Manifest, Part, utc_text
from iotstack_invoke.backups.names import KINDS
from iotstack_invoke.services.containers import Container

HASH = "0123456789abcdef" * 4
SHARD = {
    "id": 7,
    "database": "telegraf",
    "policy": "autogen",
    "start_ns": 1792368000000000000,
    "size_bytes": 6656,
    "tsm_bytes": [5023],
}
PARSED = """
import json, os
for each in os.scandir("backups"):
    each.stat()
    if each.name.endswith(".manifest.json"):
        with open(each.path) as stream:
            json.load(stream)
"""
REACH_S = 1
NAMES = ("influxdb", "nodered", "grafana", "mosquitto")


def make(folder, count):
    """Fill a folder with sets, three hours apart, of four small files each."""
    for number in range(count):
        moment = datetime(2026, 11, 23, 10, tzinfo=UTC) - timedelta(hours=3 * number)
        tag, utc = moment.strftime("%Y-%m-%d_%H%M"), utc_text(moment)
        manifest = Manifest(
            tag,
            host="raspberrypi",
            program="iotstack-invoke",
            started_utc=utc,
            finished_utc=utc,
            zone="Europe/Berlin",
            parts=(
                Part("general", f"{tag}.{KINDS['general']}", 3, HASH),
                Part(
                    "influx", f"{tag}.{KINDS['influx']}", 3, HASH, facts={"shards": [SHARD] * 10}
                ),
            ),
            containers=tuple(Container(n, f"{n}:latest", HASH, HASH, running=True) for n in NAMES),
            left_out=(LeftOut("volumes/influxdb/*", "InfluxDB's live files"),),
        )
        texts = {"manifest": manifest.to_json(), "general": "abc", "influx": "abc", "log": "\n"}
        for kind, text in texts.items():
            with open(f"{folder}/{tag}.{KINDS[kind]}", "w") as stream:
                stream.write(text)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top, contextlib.chdir(top):
        os.mkdir("backups")
        make("backups", count)
        with open("hosts.toml", "w") as stream:
            stream.write(f'[stack]\nfolder = "{top}"\n')
        with open("tasks.py", "w") as stream:
            stream.write("from invoke import task\n\n\n@task\ndef empty(c):\n    pass\n")
        listing = ["-m", "iotstack_invoke", "list", "--settings", "hosts.toml"]
        ours = (f"list of {count:,} sets", lambda: run(*listing))
        empty = ("an empty inv task", lambda: run("-m", "invoke", "empty"))
        pairs.compare(ours, empty, more_s=REACH_S)
        pairs.compare(ours, ("manifests read and parsed", lambda: run("-c", PARSED)))


def run(*words):
    subprocess.run((sys.executable, *words), check=True, stdout=subprocess.DEVNULL)


main()
