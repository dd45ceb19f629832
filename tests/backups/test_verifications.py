"""The record of verifications: the newest counts, nothing is lost, the file stays small."""

import json
import multiprocessing
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.backups import verifications as checks
from iotstack_invoke.backups.verifications import (
    Verification,
    VerificationLog,
    check_line,
    failed_at,
    read_checks,
)
from iotstack_invoke.core.errors import Busy
from iotstack_invoke.hosts.local import locked

PLACES = ("here", "nas", "usb")


def check(runtag="x", at="here", *problems, utc="2026-11-23T10:00:00Z", how="read"):
    return Verification(
        runtag, at, utc, how, not problems, problems, "program 1", "2026-11-22T10:02:00Z"
    )


SOME = st.builds(
    lambda runtag, at, problems: check(runtag, at, *problems),
    st.sampled_from(["2026-11-23_1000", "x", "before the move"]),
    st.sampled_from(PLACES),
    st.lists(st.text(), max_size=2),
)


@given(st.lists(SOME, max_size=30))
def test_the_newest_of_each_set_in_each_place_counts(given_checks):
    """Whatever was written in whatever order, the last line of a set in a place is what is read."""
    found = read_checks(map(check_line, given_checks))
    assert found == {(each.runtag, each.at): each for each in given_checks}


@given(SOME, st.data())
def test_a_torn_line_is_no_check(one, data):
    """A line cut at any byte is passed over, and the check before it counts."""
    line = check_line(one)
    cut = data.draw(st.integers(0, len(line) - 1))
    before = check(one.runtag, one.at, "older")
    assert read_checks([check_line(before), line[:cut]]) == {(one.runtag, one.at): before}


@pytest.mark.parametrize(
    "changed",
    [
        {"good": 1},
        {"problems": "none"},
        {"problems": [1]},
        {"runtag": "../x"},
        {"utc": "yesterday"},
        {"at": None},
    ],
)
def test_what_is_no_check_is_passed_over(changed):
    """A line of JSON with a value that cannot be counts for nothing."""
    content = {**json.loads(check_line(check())), **changed}
    assert read_checks([json.dumps(content), "[]", "null", "7"]) == {}


def test_failed_are_those_whose_last_check_was_bad():
    """A later good check lifts a bad one; another place's check says nothing."""
    lines = [
        check("x", "here", "cut"),
        check("y", "here", "cut"),
        check("y", "here"),
        check("z", "nas", "cut"),
    ]
    found = read_checks(map(check_line, lines))
    assert failed_at(found, "here") == {"x": "2026-11-22T10:02:00Z"}
    assert failed_at(found, "usb") == {}


def test_a_check_is_private_and_in_a_folder_of_its_own(tmp_path):
    """The folder is made where there is none; nobody else reads the file."""
    path = tmp_path / "state" / "iotstack" / "checks.jsonl"
    VerificationLog(str(path)).add(check())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert VerificationLog(str(path)).newest() == {("x", "here"): check()}


def test_a_check_after_a_torn_line_is_not_lost(tmp_path):
    """What is added behind a line without an end stands on a line of its own."""
    path = tmp_path / ".checks.jsonl"
    path.write_text(check_line(check("a")) + "\n" + check_line(check("b"))[:30])
    file = VerificationLog(str(path))
    file.add(check("c"))
    assert set(file.newest()) == {("a", "here"), ("c", "here")}


def test_the_file_stays_small(tmp_path):
    """However often two sets are verified, their newest checks stay and the file does not grow."""
    file = VerificationLog(str(tmp_path / ".checks.jsonl"))
    file.add(check("y", "nas", "cut"))
    for number in range(60):
        file.add(check("x", "here", utc=f"2026-11-23T10:00:{number:02}Z"))
        assert len((tmp_path / ".checks.jsonl").read_text().splitlines()) <= 20
    assert file.newest()["x", "here"].utc == "2026-11-23T10:00:59Z"
    assert file.newest()["y", "nas"].problems == ("cut",)


def add_many(path, at):
    file = VerificationLog(path)
    for number in range(25):
        file.add(check("x", at, str(number)))


def test_two_who_write_lose_nothing(tmp_path):
    """While several write at once, and write the file anew, the last word of each is kept."""
    path = str(tmp_path / ".checks.jsonl")
    fork = multiprocessing.get_context("spawn")
    writers = [fork.Process(target=add_many, args=(path, at)) for at in PLACES]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
    assert [each.exitcode for each in writers] == [0, 0, 0]
    assert {
        at: found.problems for (_, at), found in VerificationLog(path).newest().items()
    } == dict.fromkeys(PLACES, ("24",))


def test_a_holder_that_hangs_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    """Where the lock stays held, Busy says by whom, and nothing is written."""
    monkeypatch.setattr(checks, "LOCK_LIMIT_S", 0.1)
    path = tmp_path / ".checks.jsonl"
    with locked(f"{path}.lock", "somebody"), pytest.raises(Busy, match="somebody"):
        VerificationLog(str(path)).add(check())
    assert not path.exists()


def test_the_record_is_read_once_for_thousands_of_checks(tmp_path, monkeypatch):
    """And again where another process added to it meanwhile, whose last line may be torn."""
    path, read = tmp_path / ".checks.jsonl", []
    lines = VerificationLog._lines
    monkeypatch.setattr(VerificationLog, "_lines", lambda file: read.append(1) or lines(file))
    file = VerificationLog(str(path))
    for number in range(9):
        file.add(check(f"t{number}"))
    assert len(read) <= 2
    with path.open("a") as stream:
        stream.write('{"runtag": "torn')
    file.add(check("last"))
    assert len(VerificationLog(str(path)).newest()) == 10


def test_a_record_of_few_sets_stays_short(tmp_path):
    """Also where one process adds all of it."""
    path = tmp_path / ".checks.jsonl"
    file = VerificationLog(str(path))
    for number in range(100):
        file.add(check(utc=f"2026-11-23T10:00:{number % 60:02}Z"))
    assert len(path.read_text().splitlines()) <= checks.MOST_LINES_EACH
    assert VerificationLog(str(path)).newest()["x", "here"].utc.endswith("39Z")
