"""A program that does what the documentation of influx(1) of InfluxDB 2 says, and its faults.

`/var/lib/backup` is the folder LITTLE_BACKUP; LITTLE_FAULT says what goes wrong.
"""

import gzip
import json
import os
import shutil
import sys

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


if __name__ == "__main__":
    if sys.argv[1] == "ping":
        sys.exit(1 if os.environ["LITTLE_FAULT"] == "down" else 0)
    _, _, asked = sys.argv
    inside = "/var/lib/backup"
    assert asked.startswith(inside)
    target = os.environ["LITTLE_BACKUP"] + asked.removeprefix(inside)
    shutil.rmtree(target, ignore_errors=True)
    backup(target, os.environ["LITTLE_FAULT"])
