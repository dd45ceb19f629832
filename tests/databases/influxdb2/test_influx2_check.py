"""What InfluxDB 2 must say and leave behind: any fault is found and named."""

import gzip
import io
import json

import pytest
from fake_influx2 import BOLT, SQLITE

from iotstack_invoke.databases.influxdb2.check import Influx2Check, judge_lines, shard_of

BEGUN = "2026/11/23 12:00:00 INFO: Downloading metadata snapshot"
STAMP = "20261123T110000Z"


def part(**changed):
    """Return the files of a whole part without shards, some of them changed; None leaves one out."""
    packed = {f"{STAMP}.bolt.gz": gzip.compress(BOLT), f"{STAMP}.sqlite.gz": gzip.compress(SQLITE)}
    kv, sql = ({"fileName": name, "size": len(data)} for name, data in packed.items())
    manifest = {"manifestVersion": 2, "kv": kv, "sql": sql, "buckets": None}
    files = {
        **{f"./backup/{name}": data for name, data in packed.items()},
        f"./backup/{STAMP}.manifest": json.dumps(manifest).encode(),
        "./data/influxd.bolt": BOLT,
        "./config/influx-configs": b"",
    }
    for ending, data in changed.items():
        (name,) = [each for each in files if each.endswith(ending.replace("_", "."))]
        files[name] = data
    return {name: data for name, data in files.items() if data is not None}


def problems(**changed):
    check = Influx2Check()
    for name, data in part(**changed).items():
        check.add(name, io.BytesIO(data))
    return check.report().problems


def test_a_dump_of_an_empty_server_is_whole():
    """There need be no bucket; InfluxDB writes null for none."""
    assert problems() == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"influxd_bolt": None}, "data/influxd.bolt is missing"),
        ({"influxd_bolt": b"torn"}, "is not a bolt database"),
        ({"bolt_gz": None}, "bolt.gz: the file is missing"),
        ({"bolt_gz": b""}, "bolt.gz: it has 0 bytes"),
        ({"manifest": None}, "No .manifest found"),
        ({"manifest": b"[]"}, "the manifest cannot be read"),
        (
            {"manifest": b'{"kv": {"fileName": "../x", "size": 1}, "buckets": []}'},
            "not a file name",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named(changed, words):
    """Each fault is one sentence with the name of the file."""
    assert words in " ".join(problems(**changed))


def test_a_catalogue_that_is_none_is_found():
    """A file that unpacks well is not yet a database."""
    other = gzip.compress(bytes(len(SQLITE)), mtime=0)
    manifest = json.dumps(
        {
            "kv": {"fileName": f"{STAMP}.bolt.gz", "size": len(gzip.compress(BOLT))},
            "sql": {"fileName": f"{STAMP}.sqlite.gz", "size": len(other)},
            "buckets": [],
        }
    ).encode()
    assert problems(sqlite_gz=other, manifest=manifest) == (
        f"{STAMP}.sqlite.gz: it is not a SQLite database.",
    )


def test_a_good_log_proves_no_more_than_it_says():
    """The catalogue must have been taken; lines that we do not know mean nothing."""
    assert judge_lines([BEGUN, "whatever a newer one says"], 0).problems == ()
    assert judge_lines(["INFO: Downloading metadata snapshot"], 0).problems == ()
    assert judge_lines([], 0).problems == ("Its output does not confirm the catalogue.",)
    assert shard_of("2026/11/23 12:00:00 INFO: Backing up TSM for shard 12") == 12
    assert shard_of(BEGUN) is None


@pytest.mark.parametrize(
    ("lines", "code", "words", "again"),
    [
        ([BEGUN, "Error: failed to backup metadata: 401 Unauthorized"], 1, "INFLUX_TOKEN", False),
        ([BEGUN, "Error: write x: no space left on device"], 1, "no space left", False),
        ([BEGUN, "Error: unexpected EOF"], 1, "InfluxDB: unexpected EOF.", True),
        ([BEGUN], 137, "exit code 137: ", True),
        ([], 127, "exit code 127: no message", True),
    ],
)
def test_a_failure_is_told_in_its_own_words(lines, code, words, again):
    """What another try cannot cure is not tried again."""
    verdict = judge_lines(lines, code)
    assert words in " ".join(verdict.problems)
    assert verdict.again is again
