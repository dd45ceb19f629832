"""The sets that a listing holds, and how far each can be trusted."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.backups.manifest import Manifest, Part
from iotstack_invoke.backups.names import KINDS
from iotstack_invoke.backups.sets import (
    BackupSet,
    State,
    files_of,
    gather_sets,
    runtags_in,
    strangers_in,
)
from iotstack_invoke.core.runtag import is_runtag
from iotstack_invoke.hosts.base import FileFact

GENERAL, INFLUX = "general-backup.tar.gz", "influx-backup.tar"


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch):
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def fact(size_bytes=10):
    return FileFact(size_bytes, 1.0)


def manifest(runtag="x", *, error="", warnings=(), started="2026-11-23T10:00:00Z", size_bytes=10):
    return Manifest(
        runtag=runtag,
        host="",
        program="",
        started_utc=started,
        finished_utc=started,
        zone="",
        parts=(
            Part("general", f"{runtag}.{GENERAL}", size_bytes),
            Part("influx", f"{runtag}.{INFLUX}", 0 if error else size_bytes, error=error),
        ),
        warnings=warnings,
    )


def only(names, manifests=None):
    """Return the only set of a listing."""
    (found,) = gather_sets({name: fact() for name in names}, manifests or {})
    return found


ALL = [
    "x.manifest.json",
    f"x.{GENERAL}",
    f"x.{INFLUX}",
    "x.RESTORE.txt",
    "x.backup-log.txt",
]
NO_INFLUX = ["x.manifest.json", f"x.{GENERAL}"]


@pytest.mark.parametrize(
    ("names", "read", "state"),
    [
        (ALL, manifest(), State.COMPLETE),
        (ALL, manifest(warnings=("w",)), State.WARNINGS),
        (NO_INFLUX, manifest(error="stopped"), State.INCOMPLETE),
        (NO_INFLUX, manifest(error="stopped", warnings=("w",)), State.INCOMPLETE),
        (NO_INFLUX, manifest(), State.DAMAGED),
        (ALL, manifest(size_bytes=11), State.DAMAGED),
        (ALL, None, State.DAMAGED),
        (["x.manifest.json"], manifest(), State.DAMAGED),
        ([f"x.{GENERAL}"], None, State.UNPROVEN),
        ([f"x.{GENERAL}", f"x.{INFLUX}", "x.backup-log.txt"], None, State.UNPROVEN),
        ([f"x.{GENERAL}", "x.unfinished.jsonl"], None, State.UNFINISHED),
        (["x.unfinished.jsonl"], None, State.UNFINISHED),
        (["x.backup-log.txt", "x.unfinished.jsonl"], None, State.UNFINISHED),
        ([n for n in ALL if "RESTORE" not in n], manifest(), State.COMPLETE),
        ([*ALL, "x.unfinished.jsonl"], manifest(), State.COMPLETE),
        ([*NO_INFLUX, "x.unfinished.jsonl"], manifest(), State.UNFINISHED),
    ],
)
def test_a_set_is_as_good_as_its_files_prove(names, read, state):
    """The state follows from which files there are, their sizes and the manifest."""
    assert only(names, {"x": read} if read else {}).state is state


@pytest.mark.parametrize(
    "name",
    [
        "influxdb",
        ".journal",
        ".lock",
        "x.backup-log.txt",
        "x.RESTORE.txt",
        f"x.{GENERAL}.partial",
        f"-x.{GENERAL}",
        f".x.{GENERAL}",
        f"a;b.{GENERAL}",
        GENERAL,
        "x.manifest.json.bak",
        "x.zip",
        "notes.txt",
        "unfinished.jsonl",
        "-x.unfinished.jsonl",
        "-x.removing",
        "-x.pin.txt",
        "pin.txt",
    ],
)
def test_a_name_that_no_run_wrote_belongs_to_nobody(name):
    """Foreign names, partial files and a text alone are no set, and change none."""
    assert gather_sets({name: fact()}, {}) == ()
    names = {each: fact() for each in ALL}
    alone = gather_sets(names, {"x": manifest()})
    assert [each.runtag for each in alone] == ["x"]
    assert gather_sets(names | {name: fact()}, {"x": manifest()}) == alone


def test_a_set_that_is_being_removed_is_hidden():
    """A `.removing` marker hides its own set, whatever is left of it, and no other."""
    names = {name: fact() for name in [*ALL, "x.unfinished.jsonl", f"x.y.{GENERAL}"]}
    assert [s.runtag for s in gather_sets(names, {"x": manifest()})] == ["x", "x.y"]
    marked = names | {"x.removing": fact(0)}
    assert [s.runtag for s in gather_sets(marked, {"x": manifest()})] == ["x.y"]
    assert gather_sets({"x.removing": fact(0)}, {}) == ()


def test_of_one_second_the_later_name_is_the_newer():
    """Small stacks are backed up twice within a second."""
    names = {f"{tag}.{end}": fact() for tag in "abc" for end in (GENERAL, INFLUX, "manifest.json")}
    known = {tag: manifest(tag) for tag in "ab"} | {
        "c": manifest("c", started="2026-11-23T09:59:59Z")
    }
    assert [each.runtag for each in gather_sets(names, known)] == ["b", "a", "c"]


def test_a_pin_holds_its_own_set():
    """A set is pinned by the file beside it, and its files and state are the same."""
    names = {name: fact() for name in [*ALL, f"x.y.{GENERAL}", "x.pin.txt"]}
    found = gather_sets(names, {"x": manifest()})
    assert [(each.runtag, each.pinned) for each in found] == [("x", True), ("x.y", False)]
    assert replace(found[0], pinned=False) == only(ALL, {"x": manifest()})


def test_strangers_are_the_files_that_no_run_of_ours_wrote():
    """What lies in a folder of backups is a file of a set, hidden, a folder, or a stranger's."""
    ours = [*files_of("x"), "x.removing", *(f"{name}.partial" for name in files_of("y"))]
    foreign = ["-x.manifest.json", "notes.txt", "pin.txt", "x.zip"]
    names = {name: fact() for name in (*foreign, *ours, ".lock")}
    names["influxdb"] = FileFact(0, 1.0, is_folder=True)
    assert strangers_in(names) == tuple(foreign)


def test_a_set_knows_its_files():
    """Its files are listed by kind, its parts are its archives, its size is that of all."""
    found = only(ALL, {"x": manifest()})
    assert sorted(found.files) == ["general", "influx", "log", "manifest", "restore"]
    assert found.parts == ("general", "influx")
    assert found.size_bytes == 50
    assert found.manifest == manifest()
    assert only(NO_INFLUX).parts == ("general",)


def test_sets_come_newest_first():
    """A manifest's time comes before the runtag's; those that tell no time come last, by name."""
    names = [
        f"2026-11-23_1100.{GENERAL}",
        f"2026-11-25_1100.later.{GENERAL}",
        f"z.{GENERAL}",
        f"y.{GENERAL}",
        "before the move.manifest.json",
        "2026-11-30_0000.manifest.json",
    ]
    read = {
        "before the move": manifest("before the move", started="2026-11-24T10:00:00Z"),
        "2026-11-30_0000": manifest("2026-11-30_0000", started="2026-11-01T10:00:00Z"),
    }
    found = gather_sets({name: fact() for name in names}, read)
    assert [each.runtag for each in found] == [
        "2026-11-25_1100.later",
        "before the move",
        "2026-11-23_1100",
        "2026-11-30_0000",
        "y",
        "z",
    ]


@pytest.mark.parametrize(
    ("runtag", "read", "zone", "made"),
    [
        ("x", manifest(), None, datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2020-01-01_0000", manifest(), None, datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23_1100", None, None, datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-06-23_1100", None, None, datetime(2026, 6, 23, 9, tzinfo=UTC)),
        (
            "2026-11-23_1100",
            None,
            timezone(timedelta(hours=-5)),
            datetime(2026, 11, 23, 16, tzinfo=UTC),
        ),
        ("x", None, None, None),
        ("0001-01-01_0000", None, None, None),
        ("2026-02-30_0000", None, None, None),
    ],
)
def test_a_set_was_made_when_its_manifest_or_its_runtag_says(runtag, read, zone, made):
    """The manifest's UTC comes first, then the runtag's local time; a file's date never counts."""
    assert BackupSet(runtag, {}, State.COMPLETE, read).made(zone) == made


def test_the_last_year_tells_a_time_or_none():
    """A runtag at the end of Python's calendar stops no listing."""
    found = only([f"9999-12-31_2359.{GENERAL}"])
    assert found.made() in (None, datetime(9999, 12, 31, 22, 59, tzinfo=UTC))


def test_a_listing_tells_which_manifests_to_read():
    """Only runtags with a manifest are named."""
    names = [*ALL, f"y.{GENERAL}", "-z.manifest.json", "z.manifest.json.partial"]
    assert runtags_in(dict.fromkeys(names, fact())) == {"x"}


def test_the_files_of_a_set_begin_with_its_manifest():
    """Removed in this order, a set without a manifest never looks whole."""
    assert files_of("x") == (
        "x.manifest.json",
        "x.general-backup.tar.gz",
        "x.outside-backup.tar.gz",
        "x.influx-backup.tar",
        "x.influxdb2-backup.tar",
        "x.mariadb-backup.tar.gz",
        "x.postgres-backup.sql.gz.tar",
        "x.gitea-backup.tar.gz",
        "x.nextcloud-backup.tar.gz",
        "x.wordpress-backup.tar.gz",
        "x.RESTORE.txt",
        "x.backup-log.txt",
        "x.unfinished.jsonl",
        "x.pin.txt",
    )


def test_all_that_gathering_finds_is_among_the_files_of_a_set():
    """What is removed with a set is all that made it a set."""
    assert only(files_of("x")).runtag == "x"
    alone = [name for name in files_of("x") if gather_sets({name: fact()}, {})]
    assert set(files_of("x")) - set(alone) == {
        "x.RESTORE.txt",
        "x.backup-log.txt",
        "x.pin.txt",
    }


DATED = st.from_regex(r"\A[0-9]{4}-(0[0-9]|1[0-3])-[0-3][0-9]_[0-2][0-9][0-6][0-9]\Z")
ENDINGS = [
    GENERAL,
    INFLUX,
    "manifest.json",
    "RESTORE.txt",
    "backup-log.txt",
    "unfinished.jsonl",
    "removing",
    "pin.txt",
]
NAMES = st.builds(
    "{}.{}".format, st.text(max_size=4) | DATED, st.sampled_from([*ENDINGS, "partial", "x"])
)


@given(st.dictionaries(NAMES, st.builds(FileFact, st.integers(0, 9), st.floats(0, 9))))
def test_any_listing_has_its_sets(names):
    """No listing raises; each set has a good runtag, is named once, and holds only its own files."""
    found = gather_sets(names, {})
    runtags = [each.runtag for each in found]
    assert len(set(runtags)) == len(runtags)
    for each in found:
        assert is_runtag(each.runtag)
        assert f"{each.runtag}.removing" not in names
        assert {n for n in names if n in files_of(each.runtag)}
        assert each.size_bytes == sum(
            names[name].size_bytes
            for name in (f"{each.runtag}.{ending}" for ending in KINDS.values())
            if name in names
        )


@pytest.mark.parametrize(
    ("names", "read", "made", "state"),
    [
        (ALL, {"x": manifest()}, manifest().finished_utc, State.DAMAGED),
        (ALL, {"x": manifest(warnings=("w",))}, manifest().finished_utc, State.DAMAGED),
        (ALL, {"x": manifest()}, "2026-11-22T09:00:00Z", State.COMPLETE),
        (ALL, {"x": manifest()}, "2026-11-24T09:00:00Z", State.COMPLETE),
        (ALL, None, "2026-11-23T10:00:00Z", State.DAMAGED),
        (ALL, None, "", State.COMPLETE),
        ([f"x.{GENERAL}"], {}, "2026-11-23T10:00:00Z", State.DAMAGED),
        ([f"x.{GENERAL}", "x.unfinished.jsonl"], {}, "2026-11-23T10:00:00Z", State.UNFINISHED),
    ],
)
def test_a_set_that_failed_its_verification_is_damaged(names, read, made, state):
    """It stays so until it is made again, by whatever clock; unopened ones are told as well."""
    failed = {"x": made} if made else {}
    (found,) = gather_sets({name: fact() for name in names}, read, failed)
    assert found.state is state
