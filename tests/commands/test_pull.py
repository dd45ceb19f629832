"""Fetching finished sets of another machine over a real sshd into a folder of this one."""

import hashlib
import json
import os
import signal

import pytest
from contexts import until
from remote_stacks import Laptop, Pi, names_in
from sample_sets import Shelf, new_form

FIRST, SECOND = "2026-11-21_1100", "2026-11-22_1100"


@pytest.fixture
def pi(tmp_path, start_sshd):
    made = Pi(tmp_path / "pi", start_sshd, "pi")
    made.backups.mkdir()
    made.press = Shelf(tmp_path / "press")
    put(made, FIRST)
    return made


def put(pi, runtag):
    pi.press.put(runtag, pi.backups, when=f"{runtag[:10]}T10:00:00Z")


@pytest.fixture
def laptop(tmp_path, pi):
    return Laptop(tmp_path / "laptop", pi)


@pytest.fixture
def shelf(laptop):
    return laptop.vaults[0]


def sets_of(pi, *runtags):
    endings = (
        "RESTORE.txt",
        "backup-log.txt",
        "general-backup.tar.gz",
        "influx-backup.tar",
        "manifest.json",
    )
    return [f"{runtag}.{ending}" for runtag in runtags for ending in endings]


def test_all_that_is_missing_is_fetched(pi, laptop, shelf):
    """Each finished set arrives as it is there, nothing on the other machine changes, no word."""
    put(pi, SECOND)
    before = pi.tree()
    told = laptop.run("pull --host pi --dry-run")
    assert told.stdout.count("would be fetched into shelf: 2026-11-2") == 2
    assert names_in(shelf) == []
    told = laptop.run("pull --host pi")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert names_in(shelf) == sets_of(pi, FIRST, SECOND)
    for name in names_in(shelf):
        assert (shelf / name).read_bytes() == (pi.backups / name).read_bytes()
    assert pi.tree() == before


def test_what_is_there_is_not_fetched_again(pi, laptop, shelf):
    """A second run moves nothing; one file that went is all that comes back."""
    assert laptop.run("pull --host pi").returncode == 0
    before = {name: os.stat(shelf / name).st_ino for name in names_in(shelf)}
    archive = "2026-11-21_1100.general-backup.tar.gz"
    (shelf / archive).rename(
        shelf.parent / "away"
    )  # removed, its inode would be free for the next
    assert laptop.run("pull --host pi").returncode == 0
    after = {name: os.stat(shelf / name).st_ino for name in names_in(shelf)}
    assert {n for n in after if after[n] != before[n]} <= {
        archive,
        "2026-11-21_1100.manifest.json",
    }
    assert after[archive] != before[archive]


def test_one_that_is_named_is_fetched_alone(pi, laptop, shelf):
    """--runtag, and latest, mean one set; a name that is not there is told the nearest."""
    put(pi, SECOND)
    assert laptop.run("pull --host pi --runtag latest").returncode == 0
    assert names_in(shelf) == sets_of(pi, SECOND)
    told = laptop.run("pull --host pi --runtag 2026-11-21_1101")
    assert (told.returncode, "Nearest: 2026-11-21_1100" in told.stderr) == (10, True)


def test_an_unfinished_set_is_never_taken(pi, laptop, shelf):
    """A set whose run did not end is passed over, and refused where it is named."""
    put(pi, SECOND)
    (pi.backups / "2026-11-22_1100.manifest.json").unlink()
    (pi.backups / "2026-11-22_1100.unfinished.jsonl").write_text("{}\n")
    assert laptop.run("pull --host pi").returncode == 0
    assert names_in(shelf) == sets_of(pi, FIRST)
    told = laptop.run("pull --host pi --runtag 2026-11-22_1100")
    assert (told.returncode, "is unfinished" in told.stderr) == (13, True)


def test_an_archive_that_rotted_there_gets_no_final_name(pi, laptop, shelf):
    """What is not what the manifest says fails, and the set has no manifest."""
    archive = pi.backups / "2026-11-21_1100.general-backup.tar.gz"
    content = bytearray(archive.read_bytes())
    content[-10] ^= 1
    archive.write_bytes(content)  # the size is the same
    told = laptop.run("pull --host pi")
    assert told.returncode == 1
    assert "changed since it was written" in told.stderr
    found = names_in(shelf)
    assert "2026-11-21_1100.general-backup.tar.gz" not in found
    assert "2026-11-21_1100.manifest.json" not in found


def test_a_set_of_another_machine_is_not_replaced(pi, laptop, shelf):
    """A vault that has this name of another machine keeps it whole."""
    put(pi, SECOND)
    manifest = json.loads((pi.backups / "2026-11-21_1100.manifest.json").read_text())
    manifest["host"] = "other"
    (shelf / "2026-11-21_1100.manifest.json").write_text(new_form(manifest))
    told = laptop.run("pull --host pi")
    assert told.returncode == 1
    assert "has a backup 2026-11-21_1100 of other already" in told.stderr
    assert json.loads((shelf / "2026-11-21_1100.manifest.json").read_text())["host"] == "other"
    assert "2026-11-21_1100.general-backup.tar.gz" not in names_in(shelf)
    assert set(sets_of(pi, SECOND)) <= set(names_in(shelf))


def test_a_fetch_that_was_killed_goes_on(pi, laptop, shelf):
    """Its partial file and its mark are gone on with by the same command."""
    archive = pi.backups / "2026-11-21_1100.general-backup.tar.gz"
    archive.write_bytes(os.urandom(4_000_000))
    path = pi.backups / "2026-11-21_1100.manifest.json"
    manifest = json.loads(path.read_text())
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    manifest["parts"]["general"] |= {"size_bytes": 4_000_000, "sha256": sha256}
    path.write_text(new_form(manifest))
    half = 'case "$1" in *.tar.gz) head -c 2000000 "$1"; exec sleep 60 ;; esac'
    pi.tool("cat", f'{half}; exec /bin/cat "$@"')
    started = laptop.start("pull --host pi --runtag 2026-11-21_1100")
    partial = shelf / f"{archive.name}.partial"
    until(lambda: partial.stat().st_size > 1_000_000, limit_s=60)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    assert "2026-11-21_1100.unfinished.jsonl" in names_in(shelf)
    (pi.tools / "cat").unlink()
    assert laptop.run("pull --host pi --runtag 2026-11-21_1100").returncode == 0
    assert names_in(shelf) == sets_of(pi, FIRST)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pull", "Give the machine: --host NAME, from [[hosts]] in hosts.toml."),
        ("pull --host nobody", "hosts.toml has no host 'nobody'"),
        ("pull --host pi --to nowhere", "Known: shelf."),
    ],
)
def test_a_wish_that_means_nothing_is_told(tmp_path, line, words):
    """What is missing is named, with what there is, before anybody is asked."""
    laptop = Laptop(tmp_path / "laptop")
    with laptop.settings.open("a") as stream:
        stream.write('[[hosts]]\nname = "pi"\nhost = "pi"\n')
    told = laptop.run(line)
    assert told.returncode == 2
    assert words in told.stderr


def test_of_several_vaults_one_must_be_named(tmp_path, pi):
    """Nothing is guessed."""
    laptop = Laptop(tmp_path / "two", pi, vaults=("one", "two"))
    assert "Known: one, two." in laptop.run("pull --host pi").stderr
    assert laptop.run("pull --host pi --to two").returncode == 0
    assert names_in(laptop.vaults[1]) == sets_of(pi, FIRST)


def test_a_set_with_the_mark_of_a_pull_that_died_is_fetched_to_its_end(pi, laptop, shelf):
    """The mark goes last: while it is there nobody takes the set for a whole one."""
    assert laptop.run("pull --host pi").returncode == 0
    mark = shelf / f"{FIRST}.unfinished.jsonl"
    mark.write_text("")
    assert f"would be fetched into shelf: {FIRST}" in laptop.run("pull --host pi --dry-run").stdout
    mark.unlink()
    archive = shelf / f"{FIRST}.general-backup.tar.gz"
    archive.rename(f"{archive}.partial")
    laptop.run("pull --host pi")
    assert names_in(shelf) == sets_of(pi, FIRST)


def test_a_pin_comes_with_its_backup(pi, laptop, shelf):
    """What is pinned there is pinned here, with the note, also if it was fetched before."""
    assert laptop.run("pull --host pi").returncode == 0
    (pi.backups / f"{FIRST}.pin.txt").write_text("before the move\n")
    assert laptop.run("pull --host pi").returncode == 0
    assert (shelf / f"{FIRST}.pin.txt").read_text() == "before the move\n"
