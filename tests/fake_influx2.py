"""A program that does what the documentation of influx(1) of InfluxDB 2 says, and its faults.

LITTLE_FAULT says what goes wrong. Also what lets a little stack run it, and `IN_CONTAINER`, which
lets words of a container mean files of this machine.
"""

import gzip
import json
import os
import shutil
import sys
from pathlib import Path

BOLT = bytes(16) + b"\xed\xda\x0c\xed" + b"a bolt database" * 100
SQLITE = b"SQLite format 3\0" + b"a SQLite database" * 100
STAMP = "20261123T110000Z"
TOKEN = "operator"


def token():
    """Return the token that influx(1) would use: of the environment, else of its configs file."""
    if os.environ.get("INFLUX_TOKEN"):
        return os.environ["INFLUX_TOKEN"]
    try:
        with open(os.environ["INFLUX_CONFIGS_PATH"]) as stream:
            return stream.read().partition('token = "')[2].partition('"')[0]
    except OSError:
        return ""


def tell(text):
    print(f"2026/11/23 12:00:00 {text}", file=sys.stderr)


def put(folder, name, content):
    """Write a file of the dump, and return its entry in the manifest."""
    with open(f"{folder}/{name}", "wb") as stream:
        stream.write(content)
    return {"fileName": name, "size": len(content), "compression": 1}


def backup(folder, fault):
    tell("INFO: Downloading metadata snapshot")
    if token() != TOKEN:
        sys.exit(
            "Error: failed to backup metadata: failed to download metadata snapshot: "
            "401 Unauthorized: unauthorized access"
        )
    os.makedirs(folder)
    kv = put(folder, f"{STAMP}.bolt.gz", gzip.compress(BOLT))
    sql = put(folder, f"{STAMP}.sqlite.gz", gzip.compress(SQLITE))
    if fault == "shard removed":
        tell("WARN: Shard 8 removed during backup")
    if fault == "unknown warning":
        tell("WARN: something else")
    if fault == "cannot download":
        tell("INFO: Backing up TSM for shard 7")
        sys.exit("Error: failed to backup bucket data: unexpected EOF")
    tell("INFO: Backing up TSM for shard 7")
    with open(os.environ["LITTLE_SHARD"], "rb") as stream:
        shard = put(folder, f"{STAMP}.7.tar.gz", stream.read())
    groups = [{"id": 1, "shards": [{"id": 7, "shardOwners": [], **shard}]}]
    policy = {"name": "autogen", "shardGroups": groups}
    names = {"organizationName": "home", "bucketName": "iot"}
    buckets = [
        {**names, "retentionPolicies": [policy]},
        {**names, "bucketName": "_tasks", "retentionPolicies": [{"shardGroups": []}]},
    ]
    manifest = {"manifestVersion": 2, "kv": kv, "sql": sql, "buckets": buckets}
    if fault != "no manifest":
        put(folder, f"{STAMP}.manifest", json.dumps(manifest, indent=2).encode())
    spoil(folder, fault)


def spoil(folder, fault):
    """Damage what was written, as a full or dying disk does."""
    path = f"{folder}/{STAMP}"
    if fault == "missing shard":
        os.remove(f"{path}.7.tar.gz")
    if fault == "cut shard":
        os.truncate(f"{path}.7.tar.gz", 100)
    if fault in ("zeros in a shard", "zeros in the catalogue"):
        name = f"{path}.7.tar.gz" if "shard" in fault else f"{path}.sqlite.gz"
        size = os.path.getsize(name)
        with open(name, "r+b") as stream:
            stream.seek(size // 2)
            stream.write(bytes(size - size // 2))
    if fault == "cut manifest":
        os.truncate(f"{path}.manifest", 100)


INSIDE = {"data": "/var/lib/influxdb2", "config": "/etc/influxdb2", "backup": "/var/lib/backup"}


IN_CONTAINER = """
for each; do
  shift
  set -- "$@" "$(printf %s "$each" | sed 's#^/var/lib/backup#{store}/backup#')"
done
"""


def with_influx2(stack, version, name="influxdb2", image="influxdb:latest"):
    """Let an InfluxDB run whose dumps the stand-in makes; it tells a version."""
    stack.runs(**{name: image})
    store = stack.folder / "volumes" / name
    (store / "data").unlink()
    for each in INSIDE:
        (store / each).mkdir()
    (store / "data/influxd.bolt").write_bytes(BOLT)
    (store / "config/influx-configs").write_text(f'token = "{TOKEN}"')
    told = json.loads((stack.tools / "docker.json").read_text())
    told[0]["Mounts"] = [
        {"Source": str(store / each), "Destination": inside} for each, inside in INSIDE.items()
    ]
    (stack.tools / "docker.json").write_text(json.dumps(told))
    shard = next((Path(__file__).parent / "fixtures/influx-backups").rglob("*.s*.tar.gz"))
    settings = f"LITTLE_FAULT= LITTLE_SHARD={shard}"
    configs = f"INFLUX_CONFIGS_PATH={store}/config/influx-configs"
    configs += f" INFLUXD_BOLT_PATH={store}/data/influxd.bolt"
    stack.tool("influx", f'exec {sys.executable} -I -S {__file__} "$@"')
    answers = {
        "2": f"InfluxDB v{version}",
        "3": f"influxdb3 InfluxDB 3 Core {version}, revision x",
    }
    program = {"2": "influxd", "3": "influxdb3"}[version[0]]
    docker = (stack.tools / "docker").read_text().removeprefix("#!/bin/sh\n")
    stack.tool(
        "docker",
        f"""if [ "$1" = exec ] && [ "$3" = sh ]; then shift 2
{IN_CONTAINER.format(store=store)}
exec env {settings} {configs} "$@"; fi
if [ "$1 $3" = "exec {program}" ]; then echo "{answers[version[0]]}"; exit 0; fi
[ "$1" != exec ] || exit 127
{docker}""",
    )


if __name__ == "__main__":
    if sys.argv[1] == "ping":
        sys.exit(1 if os.environ["LITTLE_FAULT"] == "down" else 0)
    _, _, target = sys.argv
    shutil.rmtree(target, ignore_errors=True)
    backup(target, os.environ["LITTLE_FAULT"])
