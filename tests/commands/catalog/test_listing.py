"""The list: each backup once, newest first, with what is known of it here and in the vaults."""

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta

import pytest
from contexts import put_set
from sample_sets import Shelf
from terminal import Terminal

from iotstack_invoke.backups.manifest import MOST_BYTES
from iotstack_invoke.backups.sets import GOOD, State, gather_sets
from iotstack_invoke.backups.transfer import manifest_there
from iotstack_invoke.backups.verifications import Verification
from iotstack_invoke.commands.catalog.copies import find_copy
from iotstack_invoke.commands.catalog.listing import check_text, list_backups
from iotstack_invoke.commands.restore.request import Source, choose_set
from iotstack_invoke.commands.shared import vault_sets
from iotstack_invoke.core.errors import ExitCode, Refused, StepFailed
from iotstack_invoke.environment.environment import Environment, sets_in, still_failed
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.reporting import wrapping
from iotstack_invoke.reporting.report import Report, age_text

NEW, OLD, FREE = "2026-11-23_1100", "2026-11-22_1100", "before the move"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Sets here and in a folder that is a vault, and a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shelf = Shelf(tmp_path)
    usb = shelf.vault("usb")
    shelf.put(NEW)
    shelf.put(OLD, when="2026-11-22T10:00:00Z", warnings=("changed",))
    shelf.put(OLD, usb, when="2026-11-22T10:00:00Z", warnings=("changed",))
    shelf.put(FREE, usb, when="2026-11-21T10:00:00Z", host="other-pi")
    return shelf


def listed(shelf, capsys, *, as_json=True):
    list_backups(shelf.settings(), Report(), as_json=as_json)
    out = capsys.readouterr().out
    return {each["runtag"]: each for each in json.loads(out)} if as_json else out.splitlines()


def record(shelf, runtag, at, *problems):
    environment = Environment.of(shelf.settings())
    folder = environment.backups if at == "here" else environment.vaults[at].root
    read = {each.runtag: each.manifest for each in sets_in(environment.host, folder)}.get(runtag)
    made = read.finished_utc if read else ""
    when = "2026-11-23T12:00:00Z"
    environment.checks.add(
        Verification(runtag, at, when, "read", not problems, problems, "x", made)
    )


def test_each_backup_is_listed_once_newest_first(shelf, capsys):
    """Here and in a vault is one row; a name that tells no time stands by its manifest."""
    lines = listed(shelf, capsys, as_json=False)
    assert lines[0].split() == [
        "runtag",
        "age",
        "host",
        "size",
        "parts",
        "here",
        "usb",
        "verified",
    ]
    assert [line.split("   ")[0].strip() for line in lines[1:]] == [NEW, OLD, FREE]
    assert list(listed(shelf, capsys)) == [NEW, OLD, FREE]


def shown_at(columns, shelf, monkeypatch):
    """Return what a terminal of so many columns shows of the list, without colours."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(
        wrapping.os, "get_terminal_size", lambda _: os.terminal_size((columns, 50))
    )
    list_backups(shelf.settings(), Report(), as_json=False)
    return re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue()).splitlines()


@pytest.mark.parametrize("vaults", [1, 2])
def test_at_80_columns_a_backup_is_a_line(tmp_path, monkeypatch, vaults):
    """With one vault or two; what all have in common, host and parts, is told once or not at all."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shelf = Shelf(tmp_path)
    made = datetime.now(UTC) - timedelta(minutes=10)
    folders = [None, *(shelf.vault(name) for name in ("nas", "dropbox")[:vaults])]
    for number in range(3):
        when = (made - timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for folder in folders:
            shelf.put(f"2026-11-2{number}_1100", folder, when=when)
    shown = (line for line in shown_at(80, shelf, monkeypatch) if line.strip())
    head, _, *rows = (line for line in shown if not line.startswith("Parts of"))
    titles = [each for each in head.split() if each != "parts"]
    assert titles == ["runtag", "age", "size", "here", *("nas", "dropbox")[:vaults], "verified"]
    assert [row.split()[0] for row in rows] == [f"2026-11-2{number}_1100" for number in range(3)]
    assert " 10 min " in rows[0]
    assert " 24 h " in rows[1]


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_no_word_of_the_list_is_broken(shelf, monkeypatch, columns):
    """With six vaults a line below each row says where it is; a runtag may be long."""
    for number in range(5):
        shelf.vault(f"dropbox-{number}")
    runtag = "before-the-move-to-the-new-house"
    for folder in (None, shelf.base / "dropbox-1"):
        shelf.put(runtag, folder, when="2026-11-20T10:00:00Z")
    shelf.put(runtag, shelf.base / "dropbox-2", when="2026-11-20T10:00:00Z")["influx"].unlink()
    (shelf.base / f"usb/{FREE}.pin.txt").write_text("\n")
    lines = shown_at(columns, shelf, monkeypatch)
    assert max(map(len, lines)) <= columns
    told = " ".join("\n".join(lines).split())
    assert f"{runtag} " in told
    assert "here, dropbox-1: complete; dropbox-2: damaged" in told


def test_parts_that_are_not_the_usual_ones_are_told_below_their_row(shelf, monkeypatch):
    """All others have those of the last line."""
    put_set(shelf.backups, datetime(2026, 11, 24, 10, tzinfo=UTC))
    lines = shown_at(70, shelf, monkeypatch)
    row = next(number for number, line in enumerate(lines) if "2026-11-24_1000" in line)
    assert lines[row + 1] == "  parts: general"
    assert lines[-1] == "Parts of all others: general influx"
    assert sum("parts:" in line for line in lines) == 1


def test_a_backup_that_has_just_begun_has_no_line_of_parts(shelf, monkeypatch):
    """It has none yet, and the line ended after the colon."""
    (shelf.backups / "2026-11-24_1000.unfinished.jsonl").write_text("{}\n")
    lines = shown_at(70, shelf, monkeypatch)
    assert any("2026-11-24_1000" in line for line in lines)
    assert not any("parts:" in line for line in lines)


def test_states_and_hosts_are_told(shelf, capsys):
    """A copy is judged by the manifest here if that is the same, or else by its own."""
    rows = listed(shelf, capsys)
    assert (rows[NEW]["here"], rows[NEW]["vaults"], rows[NEW]["host"]) == ("complete", {}, "pi")
    assert (rows[OLD]["here"], rows[OLD]["vaults"]) == ("warnings", {"usb": "warnings"})
    assert (rows[FREE]["here"], rows[FREE]["vaults"]) == (None, {"usb": "complete"})
    assert rows[OLD]["warnings"] == ["changed"]


def test_what_only_a_vault_has_is_told_by_its_manifest(shelf, capsys):
    """State, host, time and warnings are those of its manifest, whatever its name tells."""
    usb = shelf.base / "usb"
    shelf.put("2026-11-01_1100", usb, when="2026-11-23T10:30:00Z", warnings=("changed",))
    shelf.put("2026-11-02_1100", usb)["influx"].unlink()
    shelf.put("2026-11-03_1100", usb)["manifest"].write_text("{")
    shelf.put("2026-11-04_1100", usb)["manifest"].unlink()
    (shelf.backups / f"{OLD}.manifest.json").unlink()
    rows = listed(shelf, capsys)
    assert (rows[FREE]["host"], rows[FREE]["made"]) == ("other-pi", "2026-11-21T10:00:00+00:00")
    assert next(iter(rows)) == "2026-11-01_1100"
    assert rows["2026-11-01_1100"]["warnings"] == ["changed"]
    assert {tag: row["vaults"].get("usb") for tag, row in rows.items()} == {
        "2026-11-01_1100": "warnings",
        "2026-11-02_1100": "damaged",
        "2026-11-03_1100": "damaged",
        "2026-11-04_1100": "unproven",
        NEW: None,
        OLD: "warnings",
        FREE: "complete",
    }


def test_another_backup_of_the_name_is_told(shelf, capsys):
    """A vault whose set of that name is another one than the one here has no copy of it."""
    shelf.put(OLD, shelf.base / "usb", when="2026-11-22T10:00:01Z", host="another-pi")
    assert listed(shelf, capsys)[OLD]["vaults"] == {"usb": "another"}


def test_manifests_of_a_vault_are_opened_for_a_while_only(shelf, capsys, monkeypatch):
    """What was not opened in time is told as unread, and what is here as well needs no opening."""
    monkeypatch.setattr(vault_sets, "MANIFESTS_LIMIT_S", 0)
    rows = listed(shelf, capsys)
    assert rows[FREE]["vaults"] == {"usb": "unread"}
    assert rows[OLD]["vaults"] == {"usb": "warnings"}


def test_verifications_are_told(shelf, capsys):
    """When it was verified last is in the table; programs get it by place."""
    record(shelf, NEW, "here")
    record(shelf, OLD, "usb", "it is cut")
    rows = listed(shelf, capsys)
    assert rows[NEW]["verified"]["here"]["good"] is True
    assert rows[OLD]["verified"]["usb"]["problems"] == ["it is cut"]
    assert rows[OLD]["vaults"] == {"usb": "damaged"}
    lines = listed(shelf, capsys, as_json=False)
    assert lines[2].endswith(": damaged in usb")
    assert lines[3].endswith("never")


def test_verified_is_what_is_true_of_every_copy(shelf, capsys):
    """Or else it names the one that is, also where the vault is away now."""

    def verified():
        (line,) = (e for e in listed(shelf, capsys, as_json=False) if e.startswith(OLD))
        return line.split("   ")[-1].strip()

    age = age_text(datetime(2026, 11, 23, 12, tzinfo=UTC), datetime.now(UTC), short=True)
    record(shelf, OLD, "usb")
    assert verified() == f"{age} in usb"
    (shelf.base / "usb").rename(shelf.base / "away")
    assert verified() == f"{age} in usb"
    (shelf.base / "away").rename(shelf.base / "usb")
    record(shelf, OLD, "here")
    assert verified() == age


def test_a_set_of_which_nobody_knows_whose_it_is_makes_no_column(shelf, capsys):
    """A copy's manifest tells whose it is where that here cannot be read."""
    for path in (shelf.base / "usb").glob(f"{FREE}.*"):
        path.unlink()
    (shelf.backups / f"{NEW}.manifest.json").unlink()
    assert "host" not in listed(shelf, capsys, as_json=False)[0].split()
    (shelf.backups / f"{OLD}.manifest.json").unlink()
    assert listed(shelf, capsys)[OLD]["host"]


def test_a_damaged_set_in_view_is_told_by_the_exit_code(shelf, capsys):
    """Here or in a vault, in the table or for programs; a vault that is away counts for more."""

    def codes():
        found = {
            list_backups(shelf.settings(), Report(), as_json=as_json) for as_json in (True, False)
        }
        capsys.readouterr()
        return found

    assert codes() == {ExitCode.GOOD}
    record(shelf, OLD, "usb", "it is cut")
    assert codes() == {ExitCode.WARNINGS}
    record(shelf, OLD, "usb")
    assert codes() == {ExitCode.GOOD}
    (shelf.backups / f"{NEW}.influx-backup.tar").unlink()
    assert codes() == {ExitCode.WARNINGS}
    (shelf.base / "usb").rename(shelf.base / "away")
    assert codes() == {ExitCode.FAILED}


def test_a_verification_of_other_files_is_not_told(shelf, capsys):
    """What was made anew, or is gone, was never verified; nor is its copy damaged for that."""
    record(shelf, NEW, "here", "torn")
    record(shelf, OLD, "usb", "torn")
    record(shelf, FREE, "here", "torn")
    shelf.put(NEW, when="2026-11-23T12:30:00Z")
    for folder in (None, shelf.base / "usb"):
        shelf.put(OLD, folder, when="2026-11-23T12:30:00Z")
    rows = listed(shelf, capsys)
    assert [rows[tag]["verified"] for tag in (NEW, OLD, FREE)] == [{}, {}, {}]
    assert rows[OLD]["vaults"] == {"usb": "complete"}


def test_a_copy_that_was_made_anew_is_not_damaged_where_it_alone_is_left(shelf, capsys):
    """The record speaks of the archive before it, for all who ask, whatever lies here or not."""
    usb = shelf.base / "usb"
    record(shelf, FREE, "usb", "torn")
    record(shelf, NEW, "usb", "of none")
    environment = Environment.of(shelf.settings())
    failed = {FREE: "2026-11-21T10:00:00Z"}
    source = Source(LocalHost(str(usb)), str(usb), in_place=False, name="usb", failed=failed)
    assert (
        find_copy(environment, FREE, "usb", environment.checks.newest(), print).backup.state
        is State.DAMAGED
    )
    assert choose_set(source, FREE).backup.state is State.DAMAGED
    shelf.put(FREE, usb, when="2026-11-23T12:30:00Z", host="other-pi")
    row = listed(shelf, capsys)[FREE]
    assert (row["verified"], row["vaults"]) == ({}, {"usb": "complete"})
    assert (
        find_copy(environment, FREE, "usb", environment.checks.newest(), print).backup.state
        in GOOD
    )
    assert choose_set(source, FREE).backup.state in GOOD
    assert choose_set(source, "latest").backup.runtag == FREE
    assert (
        find_copy(environment, "latest", "usb", environment.checks.newest(), print).runtag == FREE
    )
    (usb / f"{FREE}.manifest.json").write_text("{")
    assert choose_set_state(source) is State.DAMAGED


def choose_set_state(source):
    """Return the state by the record of a set whose manifest tells nothing."""
    names = source.storage.listdir(source.folder)
    failed = still_failed(source.storage, source.folder, names, source.failed)
    return next(e.state for e in gather_sets(names, None, failed) if e.runtag == FREE)


def test_a_vault_that_is_not_there_is_a_failure(shelf, capsys):
    """The others are listed, and the exit code is 1."""
    for file in (shelf.base / "usb").iterdir():
        file.unlink()
    (shelf.base / "usb").rmdir()
    assert list_backups(shelf.settings(), Report(), as_json=False) == 1
    told = capsys.readouterr()
    line = next(line for line in told.out.splitlines() if NEW in line)
    assert " ? " in line
    assert "Cannot list usb" in told.err


@pytest.mark.parametrize("name", ["2027-06-01_0000", "aaa"])
def test_the_latest_is_the_newest_by_its_manifest(shelf, name):
    """A name may tell any time or none; what was made last is the latest, in a vault as well."""
    usb = shelf.base / "usb"
    shelf.put(name, usb, when="2026-11-20T10:00:00Z")
    shelf.put("before the trip", usb, when="2026-11-23T11:00:00Z")
    source = Source(LocalHost(str(usb)), str(usb), in_place=False, name="usb")
    assert choose_set(source, "latest").backup.runtag == "before the trip"
    environment = Environment.of(shelf.settings())
    assert find_copy(environment, "latest", "usb", {}, print).runtag == "before the trip"


def test_a_record_that_cannot_be_read_is_told(shelf, capsys):
    """Without the record of verifications nothing is called good."""
    (shelf.base / "IOTstack/backups/.checks.jsonl").mkdir(parents=True)
    with pytest.raises(StepFailed, match=r"Cannot read the verification log"):
        listed(shelf, capsys)


def test_pins_are_told(shelf, capsys):
    """A backup that is pinned in one place at least is told as pinned."""
    (shelf.base / f"usb/{OLD}.pin.txt").write_text("before the move\n")
    (shelf.base / f"usb/{FREE}.pin.txt").write_text("\n")
    rows = listed(shelf, capsys)
    assert [rows[tag]["pinned"] for tag in (NEW, OLD, FREE)] == [False, True, True]
    assert [line.endswith("pinned") for line in listed(shelf, capsys, as_json=False)[1:]] == [
        False,
        True,
        True,
    ]


def test_no_archive_is_opened(shelf, capsys):
    """The list is the same when nobody may read an archive, or its bytes are gone."""
    before = listed(shelf, capsys)
    for archive in (
        *shelf.backups.glob("*backup.tar*"),
        *(shelf.base / "usb").glob("*backup.tar*"),
    ):
        size = archive.stat().st_size
        archive.unlink()
        with archive.open("wb") as stream:
            stream.truncate(size)
    after = listed(shelf, capsys)
    for each in (*before.values(), *after.values()):
        del each["age_seconds"]
    assert after == before


def test_where_there_is_nothing_the_way_on_is_told(tmp_path, capsys, monkeypatch):
    """An empty list names the folder and the command that makes a backup."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shelf = Shelf(tmp_path)
    assert "inv backup" in listed(shelf, capsys, as_json=False)[0]
    (shelf.stack / "docker-compose.yml").unlink()
    (bare,) = listed(shelf, capsys, as_json=False)
    assert "inv backup" not in bare
    assert "inv restore --runtag latest --from FOLDER" in bare


@pytest.mark.parametrize(
    ("how", "made", "told"),
    [
        ("read", "2026-11-23T10:00:00Z", "2 days"),
        ("read", "", "2 days: unproven"),
        ("restore", "2026-11-23T10:00:00Z", "2 days, by rehearsal"),
        ("restore", "", "2 days, by rehearsal"),
        ("unpack", "", "2 days: unproven"),
    ],
)
def test_how_a_set_was_verified(how, made, told):
    """A restore that was rehearsed proves a set also where it has no manifest."""
    check = Verification("t1", "here", "2026-11-20T10:00:00Z", how, good=True, made=made)
    assert check_text(check, datetime(2026, 11, 22, 12, tzinfo=UTC)) == told


def test_the_manifest_of_another_set_is_refused(shelf):
    """A restore takes no set whose manifest is that of another one."""
    usb = shelf.base / "usb"
    (usb / f"{FREE}.manifest.json").write_text((usb / f"{OLD}.manifest.json").read_text())
    source = Source(LocalHost(str(usb)), str(usb), in_place=False, name="usb")
    with pytest.raises(Refused, match=f"it is the manifest of {OLD}"):
        choose_set(source, FREE)


def test_a_file_too_large_for_a_manifest_is_not_read(shelf, capsys):
    """Who fills a vault with gigabytes under our names stops no look at it."""
    usb = shelf.base / "usb"
    manifest = shelf.put("forged", usb)["manifest"]
    with manifest.open("ab") as stream:
        stream.write(b" " * MOST_BYTES)
    assert listed(shelf, capsys)["forged"]["vaults"] == {"usb": "damaged"}
    environment = Environment.of(shelf.settings())
    states = {each.runtag: each.state for each in sets_in(environment.vaults["usb"], str(usb))}
    assert states == {OLD: State.WARNINGS, FREE: State.COMPLETE, "forged": State.DAMAGED}
    with pytest.raises(ValueError, match="the most is 16,777,216"):
        find_copy(environment, "forged", "usb", {}, print).manifest()
    source = Source(LocalHost(str(usb)), str(usb), in_place=False, name="usb")
    with pytest.raises(Refused, match="The manifest of forged in usb is damaged"):
        choose_set(source, "forged")


def test_a_set_of_that_name_is_looked_at_before_it_is_read(shelf):
    """A backup asks for the manifest of its own name here and in each vault: none so large."""
    usb = shelf.base / "usb"
    environment = Environment.of(shelf.settings())
    assert environment.manifest(NEW)
    assert manifest_there(environment.vaults["usb"], str(usb), FREE)
    for path in (shelf.put(NEW)["manifest"], shelf.put(FREE, usb)["manifest"]):
        with path.open("ab") as stream:
            stream.write(b" " * MOST_BYTES)
    assert environment.manifest(NEW) is None
    assert manifest_there(environment.vaults["usb"], str(usb), FREE) is None
    assert manifest_there(environment.vaults["usb"], str(usb), "none") is None
