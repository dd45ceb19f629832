"""Of what no verification has seen yet, every command says the same, by the names and sizes."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from contexts import put_set

NOW = datetime.now(UTC).replace(microsecond=0)
OLD, NEW = "old", "new"


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with two sets here and in a vault, made by runs of its own."""
    pi = little_stack
    pi.backups = pi.folder / "backups"
    pi.usb = tmp_path / "usb"
    pi.usb.mkdir()
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{pi.usb}"\n')
    for tag, size in ((OLD, 10), (NEW, 3000)):
        (pi.folder / "volumes/nodered/flows.json").write_bytes(os.urandom(size))
        assert pi.run(f"backup --runtag {tag}").returncode == 0
        if tag == OLD:
            time.sleep(1.1)  # a manifest tells whole seconds: of one second neither is the newer
    return pi


def archive(folder, tag):
    return folder / f"{tag}.general-backup.tar.gz"


def removed(pi):
    archive(pi.usb, NEW).unlink()


def swapped(pi):
    one, other = archive(pi.usb, OLD), archive(pi.usb, NEW)
    one.rename(pi.usb / "x")
    other.rename(one)
    (pi.usb / "x").rename(other)


def unnamed(pi):
    (pi.usb / f"{NEW}.influx-backup.tar").write_bytes(b"x")


@pytest.mark.parametrize("wrong", [removed, swapped, unnamed])
def test_a_damaged_copy_is_damaged_for_list_and_status(pi, wrong):
    """Before any verification: one of them said unfinished, or good, and the other damaged."""
    wrong(pi)
    told = pi.run("list --json")
    states = {each["runtag"]: each["vaults"]["usb"] for each in json.loads(told.stdout)}
    assert (told.returncode, states[NEW]) == (3, "damaged")
    assert "damaged" in pi.run("status").stdout + pi.run("status").stderr
    assert pi.run("status").returncode != 0
    assert pi.run(f"verify --runtag {NEW} --at usb").returncode == 1


def test_where_all_are_damaged_there_is_no_latest(pi):
    """The dry run of a restore took the newest without a word, and the real one failed."""
    swapped(pi)
    told = [pi.run(f"restore --runtag latest --from usb {e}") for e in ("--dry-run", "--yes")]
    assert told[0].returncode == told[1].returncode != 0
    assert "No backups found in usb" in told[0].stderr
    assert "except damaged ones: new, old." in told[0].stderr


def test_latest_passes_over_what_is_damaged_by_its_size(pi):
    """Where none is good, an incomplete one that is whole is taken, and the damaged one named."""
    for each in pi.usb.iterdir():
        each.unlink()
    put_set(
        pi.usb, NOW - timedelta(days=1), runtag="half", more={"postgres": {"failed": {"x": "y"}}}
    )
    put_set(pi.usb, NOW, runtag="cut")
    archive(pi.usb, "cut").write_bytes(b"x")
    told = pi.run("restore --runtag latest --from usb --dry-run")
    assert "Restore half" in told.stdout, told.stderr
    assert "PASSED OVER: cut in usb" in told.stderr


def test_a_dry_run_of_a_set_with_an_archive_of_another_size_is_refused(pi):
    """As the real one is, in the same words."""
    archive(pi.backups, NEW).write_bytes(b"x" * 100)
    told = [
        pi.run(f"restore --runtag {NEW} --from here {each}") for each in ("--dry-run", "--yes")
    ]
    assert [each.returncode for each in told] == [13, 13]
    assert "new.general-backup.tar.gz has 100 bytes, but its manifest has" in told[0].stderr
    assert told[0].stderr == told[1].stderr


def test_a_dry_run_knows_of_damage_that_a_verification_found(pi):
    """Until the archive is mended: then it is what was written, whatever the record says."""
    path = archive(pi.backups, NEW)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes(9))
    assert pi.run(f"verify --runtag {NEW} --at here").returncode == 1
    told = pi.run(f"restore --runtag {NEW} --from here --dry-run")
    assert told.returncode == 1, told.stderr
    assert "damaged" in told.stderr
    path.write_bytes(whole)
    assert pi.run(f"restore --runtag {NEW} --from here --dry-run").returncode == 0


def test_a_restore_goes_by_the_manifest(pi):
    """An archive that it does not name is of another run, or of none; it is told."""
    (pi.backups / f"{NEW}.mariadb-backup.tar.gz").write_bytes(b"x")
    told = pi.run(f"restore --runtag {NEW} --from here --yes")
    assert told.returncode in (0, 3), told.stderr
    words = " ".join(told.stderr.split())
    assert "new.mariadb-backup.tar.gz exists, but the manifest has no mariadb part: it" in words
    assert pi.run(f"rehearse --runtag {NEW} --at here").returncode in (0, 3)


def test_a_copy_whose_manifest_is_not_there_yet_is_unfinished(pi):
    """As while it is copied, or removed: `list` ended with a traceback."""
    (pi.usb / f"{NEW}.manifest.json").unlink()
    told = pi.run("list --json")
    states = {each["runtag"]: each["vaults"]["usb"] for each in json.loads(told.stdout)}
    assert states == {OLD: "complete", NEW: "unfinished"}, told.stderr
    assert "Traceback" not in pi.run("status").stderr
