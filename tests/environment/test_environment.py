"""What lies in a place: the newest good set, by its manifest, opened no more than must be."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from contexts import put_set

from iotstack_invoke.backups.manifest import RECORDS_ENDING as MARK
from iotstack_invoke.core.errors import StepFailed, Unreachable
from iotstack_invoke.environment.environment import (
    BYTES_AT_ONCE,
    CLOCKS_APART,
    GROWN_BYTES,
    MANIFESTS_AT_ONCE,
    STALE_COPY,
    STALE_MARK,
    contents_told,
    counts_at_once,
    newest_good,
    sweep_stale_copies,
)
from iotstack_invoke.hosts.base import FileFact
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def newest(folder, **given):
    """Return the runtag of the newest good set, and those that are from the future."""
    found = newest_good(LocalHost(str(folder)), str(folder), NOW, **given)
    return (found.good.runtag if found.good else None), found.ahead


class Asked(LocalHost):
    """A folder that notes for which files it is asked, question by question."""

    def __init__(self, root):
        super().__init__(root)
        self.questions = []

    def read_many(self, folder, names):
        names = list(names)
        self.questions.append(names)
        return super().read_many(folder, names)


def test_the_newest_good_set_is_told_by_its_manifest(tmp_path):
    """A set that lacks a part, is damaged or has no manifest is passed over for an older one."""
    assert newest(tmp_path) == (None, ())
    put_set(tmp_path, NOW - 30 * HOUR, runtag="older")
    put_set(tmp_path, NOW - 20 * HOUR, runtag="good", warnings=("w",))
    put_set(tmp_path, NOW - 4 * HOUR, runtag="lacks a part", error="stopped")
    put_set(tmp_path, NOW - 3 * HOUR, runtag="cut", size_bytes=11)
    put_set(tmp_path, NOW - 2 * HOUR, runtag="unreadable").write_text("{")
    put_set(tmp_path, NOW - HOUR, runtag="unfinished").unlink()
    assert newest(tmp_path) == ("good", ())


def test_dates_of_files_decide_nothing(tmp_path):
    """Where a copy gave all files the date of today, the manifests still tell the newest."""
    for hours in (5, 50, 3, 40):
        put_set(tmp_path, NOW - hours * HOUR, runtag=f"of {hours}")
    for each in tmp_path.iterdir():
        os.utime(each)
    assert newest(tmp_path) == ("of 3", ())


def test_the_future_proves_nothing(tmp_path):
    """A set from the future is named and not counted; one of a clock that is a bit ahead counts."""
    put_set(tmp_path, NOW - 9 * HOUR, runtag="past")
    put_set(tmp_path, NOW + 9 * HOUR, runtag="future")
    assert newest(tmp_path) == ("past", ("future",))
    put_set(tmp_path, NOW + CLOCKS_APART, runtag="bit ahead")
    assert newest(tmp_path) == ("bit ahead", ("future",))


def test_another_machines_sets_are_passed_over_if_asked(tmp_path):
    """In a vault of several machines, a young backup of one says nothing of the other."""
    put_set(tmp_path, NOW - 2 * HOUR, runtag="theirs", host="other-pi")
    put_set(tmp_path, NOW - 9 * HOUR, runtag="ours", host="pi")
    assert newest(tmp_path) == ("theirs", ())
    assert newest(tmp_path, host="pi") == ("ours", ())


def test_older_manifests_stay_shut(tmp_path):
    """Of sets whose names and files tell that they are older than the newest, none is opened."""
    for days in range(9):
        put_set(tmp_path, NOW - timedelta(days=days))
    asked = Asked(str(tmp_path))
    assert newest_good(asked, asked.root, NOW).made == NOW
    assert asked.questions == [["2026-11-23_1400.manifest.json"]]


@pytest.mark.parametrize("dates", ["none", "one is wrong", "all are of one day"])
@pytest.mark.parametrize("runtag", ["", "before-the-move", "2020-01-01_1100"])
def test_the_newest_is_found_whatever_the_dates_of_files_say(tmp_path, dates, runtag):
    """A WebDAV may tell none, the clock of a copier was wrong, and a person chose the name."""
    last = put_set(tmp_path, NOW, runtag=runtag)
    for days in range(1, 40):
        put_set(tmp_path, NOW - timedelta(days=days))
    for each in tmp_path.iterdir():
        if dates == "none":
            os.utime(each, (0, 0))
        elif dates == "all are of one day":
            os.utime(each, (NOW.timestamp(),) * 2)
        elif each.name.startswith(last.name.partition(".")[0]):
            os.utime(each, (946684800,) * 2)
    asked = Asked(str(tmp_path))
    assert newest_good(asked, asked.root, NOW).made == NOW
    assert len(asked.questions) <= 3


def test_an_old_manifest_that_cannot_be_read_hides_no_newer_one(tmp_path):
    """It is asked for with others; alone it matters only where it may be the newest."""
    for days in (1, 2, 3):
        put_set(tmp_path, NOW - timedelta(days=days))
    put_set(tmp_path, NOW, error="stopped")

    class Shut(Asked):
        def read_many(self, folder, names):
            names = list(names)
            if any(each.startswith(self.shut) for each in names):
                raise StepFailed(f"{self.shut} cannot be read")
            return super().read_many(folder, names)

    storage = Shut(str(tmp_path))
    storage.shut = "2026-11-20_1400"
    assert newest_good(storage, storage.root, NOW).made == NOW - timedelta(days=1)
    storage.shut = "2026-11-22_1400"
    with pytest.raises(StepFailed, match="2026-11-22_1400 cannot be read"):
        newest_good(storage, storage.root, NOW)


def test_a_place_that_does_not_answer_is_no_empty_place(tmp_path):
    """A drive that is not mounted is told as such, not as one without backups."""
    storage = vault_storage(VaultConfig("usb", str(tmp_path / "usb")))
    with pytest.raises(Unreachable, match="Is the drive mounted"):
        newest_good(storage, storage.root, NOW)


@pytest.mark.parametrize("together", [True, False])
def test_a_place_that_answers_more_than_it_lists_fills_no_memory(tmp_path, together):
    """What is much larger than it was listed is not kept; what has grown a little is."""

    class Growing(LocalHost):
        def read_many(self, folder, names):
            if len(names) > 1 and not together:
                raise StepFailed("one of them cannot be read")
            return super().read_many(folder, names)

    storage = Growing(str(tmp_path))
    for days in (1, 2):
        put_set(tmp_path, NOW - timedelta(days=days))
    listed = {
        name: fact for name, fact in storage.listdir(storage.root).items() if "manifest" in name
    }
    much, little = sorted(listed)
    for name, more in ((much, GROWN_BYTES + 1), (little, GROWN_BYTES)):
        (tmp_path / name).write_text((tmp_path / name).read_text() + " " * more)
    assert contents_told(storage, storage.root, [much, little], listed).keys() == {little}


def partial(folder, runtag, *, age, mark=None):
    """Put a partial copy there of an age, and maybe the mark of its set of another."""
    for name, old in ((f"{runtag}.influx-backup.tar.partial", age), (f"{runtag}.{MARK}", mark)):
        if old is not None:
            (folder / name).write_text("{}")
            os.utime(folder / name, (time.time() - old.total_seconds(),) * 2)


def test_a_copy_of_an_earlier_version_on_its_way_stays(tmp_path):
    """It bears the date of its original while it is proven; the mark of its set tells of its run."""
    partial(tmp_path, "sending", age=3 * STALE_COPY, mark=STALE_COPY + HOUR)
    partial(tmp_path, "dead", age=STALE_COPY + HOUR, mark=STALE_MARK + HOUR)
    sweep_stale_copies(LocalHost(str(tmp_path)))
    assert sorted(os.listdir(tmp_path)) == [
        f"dead.{MARK}",
        "sending.influx-backup.tar.partial",
        f"sending.{MARK}",
    ]


@pytest.mark.parametrize("ahead", [-3650, 3650])
def test_how_old_a_copy_is_tells_the_clock_of_its_place(tmp_path, ahead):
    """A NAS without a clock is in another year: what another Pi sends there now is young."""

    class Nas(LocalHost):
        def listdir(self, folder):
            return {name: self.dated(each) for name, each in super().listdir(folder).items()}

        def stat(self, paths):
            return {path: self.dated(each) for path, each in super().stat(paths).items()}

        def dated(self, fact):
            return replace(fact, modified_s=fact.modified_s + ahead * 24 * 3600)

    partial(tmp_path, "sending", age=HOUR)
    sweep_stale_copies(Nas(str(tmp_path)))
    assert os.listdir(tmp_path) == ["sending.influx-backup.tar.partial"]


def test_only_the_partial_copies_of_dead_runs_are_swept(tmp_path):
    """A young one may be another Pi's that is sending now; what is no set's is nobody's of ours."""
    ages = {"dead": STALE_COPY + HOUR, "sending": STALE_COPY - HOUR, "begun": timedelta()}
    for runtag, age in ages.items():
        path = tmp_path / f"{runtag}.general-backup.tar.gz.partial"
        path.write_text("half")
        os.utime(path, (time.time() - age.total_seconds(),) * 2)
    for name in ("film.mkv.partial", "dead.general-backup.tar.gz"):
        (tmp_path / name).write_text("old")
        os.utime(tmp_path / name, (1e9, 1e9))
    sweep_stale_copies(LocalHost(str(tmp_path)))
    assert sorted(os.listdir(tmp_path)) == [
        "begun.general-backup.tar.gz.partial",
        "dead.general-backup.tar.gz",
        "film.mkv.partial",
        "sending.general-backup.tar.gz.partial",
    ]


def test_small_files_are_asked_for_by_their_sizes():
    """No question asks for too many, or for too much; one that is too large alone is asked alone."""
    half = BYTES_AT_ONCE // 2
    sizes = [half, half, half, half + 1, 3 * half, *([1] * (MANIFESTS_AT_ONCE + 1))]
    names = {str(number): FileFact(size, 0.0) for number, size in enumerate(sizes)}
    assert list(counts_at_once(list(names), names)) == [2, 1, 1, 1, MANIFESTS_AT_ONCE, 1]
    assert list(counts_at_once([], names)) == []
