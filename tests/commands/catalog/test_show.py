"""Showing a set: all that its manifest tells, where its copies lie, the members of its archives."""

import json
import subprocess
import tarfile
import time

import pytest
from sample_sets import Shelf, new_form

from iotstack_invoke.backups.manifest import LeftOut, Part
from iotstack_invoke.backups.names import KINDS
from iotstack_invoke.commands.catalog.show import _part_lines, show, show_files
from iotstack_invoke.commands.catalog.verify import Wanted, verify
from iotstack_invoke.core.errors import NotFound, StepFailed, UsageError
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.services.containers import Container

TAG = "2026-11-23_1100"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A stack with one set here and a folder as a vault, and a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shelf = Shelf(tmp_path)
    shelf.put(
        TAG,
        containers=(Container("influxdb", "influxdb:1.8", "sha256:1", "influxdb@sha256:2", True),),
        left_out=(LeftOut("volumes/nextcloud/*", "not safe"),),
        warnings=("[bold] changed as we read it",),
    )
    shelf.vault("usb")
    return shelf


def shown(shelf, capsys, asked=TAG, at="", as_json=False):
    assert show(shelf.settings(), asked, at, Report(), as_json=as_json) == 0
    return capsys.readouterr().out


def test_a_set_is_told_with_all_that_its_manifest_holds(shelf, capsys):
    """Parts, hashes, databases, containers, what was left out, warnings and copies are there."""
    told = shown(shelf, capsys)
    manifest = json.loads((shelf.backups / f"{TAG}.manifest.json").read_text())
    for part in manifest["parts"].values():
        assert part["file"] in told
        assert part["sha256"] in told
    for word in (
        *("telegraf", "home", "emptydb", "shorty"),
        "influxdb: influxdb:1.8 influxdb@sha256:2, runs",
        "volumes/nextcloud/*: not safe",
        "[bold] changed as we read it",
        "here: warnings, verified: never",
        "on        pi by program 1",
        "continuous queries: 1",
    ):
        assert word in told


def test_what_a_part_holds_is_told_as_a_person_reads_it(shelf, capsys):
    """Files stand on lines of their own and sizes have units: nothing looks like a program's."""
    path = shelf.backups / f"{TAG}.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["parts"]["general"]["facts"] = {
        "sqlite": ["volumes/a/x.db", "volumes/b/[y].db"],
        "sqlite_bytes": 12345,
        "sqlite_files": 2,
        "at_rest": ["volumes/c"],
        "stays": ["volumes/nextcloud/*", "volumes/esphome/config/.esphome/*"],
    }
    path.write_text(new_form(manifest))
    told = shown(shelf, capsys)
    for line in (
        "  sqlite    volumes/a/x.db",
        "  sqlite    volumes/b/[y].db",
        "  at rest   volumes/c",
        "  sqlite: 12.3 kB (12,345 bytes)",
        "  sqlite files: 2",
        "  left out  volumes/nextcloud/* (not changed by a restore)",
    ):
        assert line in told.splitlines()
    assert "esphome" not in told  # there was none to be left out
    assert "['" not in told
    assert "[{" not in told


def test_where_copies_lie_and_what_verification_said_is_told(shelf, capsys):
    """Each copy has its state, and a damaged one what is wrong with it."""
    shelf.put(TAG, shelf.base / "usb")["influx"].write_bytes(b"")
    verify(shelf.settings(), Wanted(at="all"), Report(), as_json=False)
    capsys.readouterr()
    told = shown(shelf, capsys)
    assert "usb: damaged, verified: just now: damaged" in told
    assert "influx-backup.tar has 0 bytes" in told
    found = json.loads(shown(shelf, capsys, as_json=True))
    assert found["copies"] == {"here": "warnings", "usb": "damaged"}
    assert found["verified"]["here"]["good"] is True
    assert found["manifest"]["host"] == "pi"


@pytest.mark.parametrize("at", ["", "usb"])
def test_the_first_line_says_what_the_copy_is(shelf, capsys, at):
    """Also of one that only a vault has: by its manifest, as the line of the copy says it."""
    shelf.put("old", shelf.base / "usb", warnings=("changed",), when="2026-11-01T10:00:00Z")
    told = shown(shelf, capsys, "old", at)
    assert told.startswith("old in usb: warnings\n")
    assert "  copy      usb: warnings, verified: never" in told
    assert json.loads(shown(shelf, capsys, "old", at, as_json=True))["state"] == "warnings"


def test_the_zone_is_said_once(shelf, capsys, monkeypatch):
    """That of the machine that made it, beside the offset here only where that is another."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    for zone, told in (("UTC +0000", "10:00:00 UTC,"), ("CET +0100", "+0000 (CET +0100),")):
        shelf.put(TAG, zone=zone)
        assert told in shown(shelf, capsys)
    monkeypatch.undo()
    time.tzset()


def test_a_set_without_a_manifest_is_shown_too(shelf, capsys):
    """Of archives of other scripts the sizes are told, and that nothing proves them."""
    (shelf.backups / f"{TAG}.manifest.json").unlink()
    told = shown(shelf, capsys)
    assert "unproven" in told
    assert "It has no manifest" in told


def test_a_damaged_manifest_is_told(shelf, capsys):
    """Where the manifest cannot be read, that is said, and the set is damaged."""
    (shelf.backups / f"{TAG}.manifest.json").write_text("{")
    told = shown(shelf, capsys)
    assert "here: damaged" in told
    assert "The manifest is damaged" in told


def test_a_set_that_is_not_there_is_not_found_with_the_nearest(shelf):
    """Exit code 10 and the names that are like what was typed."""
    with pytest.raises(NotFound, match=f"Nearest: {TAG}"):
        show(shelf.settings(), "2026-11-23_1101", "", Report(), as_json=False)
    with pytest.raises(NotFound, match="in usb"):
        show(shelf.settings(), TAG, "usb", Report(), as_json=False)
    with pytest.raises(UsageError, match="here, usb, vault, all"):
        show(shelf.settings(), TAG, "nas", Report(), as_json=False)


@pytest.mark.parametrize("part", ["general", "influx"])
def test_the_members_of_an_archive_are_those_that_tar_lists(shelf, capsys, part):
    """Names, in the order of the archive, are what GNU tar lists."""
    assert show_files(shelf.settings(), TAG, part, "", Report(), as_json=True) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (archive,) = shelf.backups.glob(f"{TAG}.{part}-*")
    listed = subprocess.run(
        ["tar", "-tf", archive], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert [each["name"] for each in found] == [each.removesuffix("/") for each in listed]
    show_files(shelf.settings(), TAG, part, "", Report(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [each["name"] for each in found]


def test_a_name_with_a_line_break_is_one_line(shelf, capsys):
    """A hostile name cannot pretend to be another member."""
    path = shelf.backups / f"{TAG}.general-backup.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a\nb"))
    show_files(shelf.settings(), TAG, "general", "", Report(), as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_name_with_a_line_break_is_one_line_in_the_summary(shelf, capsys):
    """It is in quotes there as in the listing, wherever it is told."""
    odd = "volumes/n\nl.db"
    facts = {"sqlite": [odd], "databases": [odd], "outside": [{"path": f"/{odd}", "mounts": []}]}
    part = Part("general", f"odd.{KINDS['general']}", 1, "0" * 64, facts=facts)
    text = "\n".join(_part_lines(part, ()))
    assert text.count("'volumes/n\\nl.db'") == 2
    assert text.count("'/volumes/n\\nl.db'") == 1
    assert "\nl.db" not in text


def test_a_damaged_archive_is_listed_as_far_as_it_goes(shelf, capsys):
    """What can be read is shown, and then that there is damage and how to learn more."""
    path = shelf.backups / f"{TAG}.influx-backup.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StepFailed, match=f"inv verify --runtag '{TAG}' --at here"):
        show_files(shelf.settings(), TAG, "influx", "", Report(), as_json=False)
    assert capsys.readouterr().out


def test_a_part_that_is_not_there_is_not_found(shelf):
    """A part that no set has is wrong usage; one that this set lacks is not found."""
    with pytest.raises(UsageError, match="general, outside, influx"):
        show_files(shelf.settings(), TAG, "redis", "", Report(), as_json=False)
    (shelf.backups / f"{TAG}.influx-backup.tar").unlink()
    with pytest.raises(NotFound):
        show_files(shelf.settings(), TAG, "influx", "", Report(), as_json=False)


def test_who_reads_only_the_first_lines_gets_no_traceback(little_stack):
    """`inv show --files general | head -1` ends quietly although there was more to say."""
    for number in range(3000):
        (little_stack.folder / f"volumes/nodered/{'x' * 60}{number}").write_text("")
    assert little_stack.run("backup --runtag many").returncode == 0
    process = little_stack.start("show many --files general")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 141
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
