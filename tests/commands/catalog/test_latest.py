"""`latest` names every newer set that it passes over, with why, and with what helps."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from contexts import put_set
from remote_stacks import Laptop, Pi
from sample_sets import Shelf

from iotstack_invoke.backups.verifications import Verification
from iotstack_invoke.commands.catalog.copies import choose_copy, copies_at
from iotstack_invoke.commands.restore.request import Source, choose_set
from iotstack_invoke.environment.environment import Environment
from iotstack_invoke.hosts.local import LocalHost

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
GOOD, BAD = "good", "bad"
BADLY = {
    "damaged": "is damaged: files of it are missing",
    "manifest": "is damaged: its manifest cannot be read",
    "verified": "is damaged: its last verification there failed",
    "incomplete": "is incomplete: no general part",
    "unfinished": "is unfinished: its ",
    "foreign": "has no manifest that proves it",
}


def put_bad(folder, kind, made=NOW - DAY, runtag=BAD):
    """Put a set into a folder that is no good in some way."""
    path = put_set(folder, made, runtag=runtag, error="full" if kind == "incomplete" else "")
    if kind == "damaged":
        (folder / f"{runtag}.general-backup.tar.gz").write_bytes(b"x")
    elif kind == "manifest":
        path.write_text("{")
    elif kind in ("unfinished", "foreign"):
        path.unlink()
    if kind == "unfinished":
        (folder / f"{runtag}.unfinished.jsonl").write_text("{}\n")
    return path


def verdict(environment, at):
    """Record that the bad set failed its verification."""
    made = (NOW - DAY).isoformat().replace("+00:00", "Z")
    environment.checks.add(Verification(BAD, at, made, "read", False, ("torn",), "x", made))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shelf(tmp_path)


@pytest.mark.parametrize("at", ["here", "usb", "nas"])
@pytest.mark.parametrize("kind", BADLY)
def test_what_is_newer_and_no_good_is_passed_over_by_name(shelf, start_sshd, kind, at):
    """Here, in a vault, and in one over SSH; by the rule of restore, and by that of all others."""
    shelf.vault("usb")
    shelf.vault("nas", start_sshd().login() if at == "nas" else None)
    folder = shelf.backups if at == "here" else shelf.base / at
    put_set(folder, NOW - 3 * DAY, runtag="older still")
    put_bad(folder, "damaged", NOW - 4 * DAY, "bad and old")
    put_set(folder, NOW - 2 * DAY, runtag=GOOD)
    put_bad(folder, kind)
    put_set(folder, NOW - DAY / 2, runtag="of another", host="other-pi", error="full")
    put_set(folder, NOW - DAY / 4, runtag="good of another", host="other-pi")
    environment = Environment.of(shelf.settings())
    if kind == "verified":
        verdict(environment, at)
    checks = environment.checks.newest()
    copy = choose_copy(copies_at(environment, at, checks), "latest", at, checks)
    place = LocalHost("/") if at == "here" else environment.vaults[at]
    failed = {tag: each.made for (tag, where), each in checks.items() if where == at}
    chosen = choose_set(Source(place, str(folder), at == "here", at, failed), "latest")
    assert (copy.runtag, chosen.backup.runtag) == (GOOD, GOOD)
    for passed in (copy.passed, chosen.passed):
        (each,) = passed
        assert (each.runtag, each.at, each.is_copy) == (BAD, at, at != "here")
        assert each.why.startswith(BADLY[kind])
        assert each.is_bad == (kind != "foreign")
    environment.close()


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with two backups, of which the newer lost its end."""
    assert little_stack.run("backup --runtag first").returncode == 0
    time.sleep(1)  # a manifest tells full seconds
    assert little_stack.run("backup --runtag second").returncode == 0
    little_stack.archive = little_stack.folder / "backups/second.general-backup.tar.gz"
    little_stack.archive.write_bytes(little_stack.archive.read_bytes()[:-1])
    return little_stack


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("verify", 3),
        ("verify --runtag latest --json", 3),
        ("rehearse --runtag latest", 3),
        ("restore --runtag latest --dry-run", 0),
        ("restore --runtag latest --yes", 3),
        ("show latest", 0),
        ("diff first latest", 0),
        ("pin latest", 0),
    ],
)
def test_each_who_takes_the_latest_says_so_first(pi, line, code):
    """With what is wrong, and what tells more of it; and whoever acts ends with 3."""
    told = pi.run(line)
    assert told.returncode == code, told.stderr
    first, _, rest = told.stderr.strip().partition("\n")
    said = " ".join((first + rest).split())
    assert said.startswith(("PASSED OVER: second in ", "PASSED OVER: second here,")), told.stderr
    assert "which is newer, is damaged: files of it are missing or have another size." in said
    assert "inv show 'second'" in said
    assert "To use it anyway:" not in said  # by its name it would fail
    if "--json" in line:
        (row,) = json.loads(told.stdout)
        assert [each["runtag"] for each in row["passed_over"]] == ["second"]
    if "--yes" in line:
        assert "second, which is newer, is damaged" in " ".join(told.stderr.split())


def test_what_is_dated_in_the_future_is_passed_over_by_name(pi):
    """As on a Pi without a network, whose clock stands where it was: an older one is no silence."""
    put_set(pi.folder / "backups", NOW + DAY, runtag="later")
    told = pi.run("restore --runtag latest --dry-run")
    assert "Restore first (" in told.stdout
    said = " ".join(told.stderr.split())
    assert "PASSED OVER: later in this machine:backups, which is newer, is dated in the" in said
    assert "To use it anyway: --runtag 'later'." in said


def test_where_all_are_dated_in_the_future_the_newest_is_the_latest(little_stack):
    """A new machine's clock is that of its image, and a name tells no time."""
    backups = little_stack.folder / "backups"
    backups.mkdir()
    for runtag, days in (("a", 1), ("z", 3), ("m", 2)):
        put_set(backups, NOW + days * DAY, runtag=runtag)
    put_set(backups, NOW - DAY, runtag="of another", host="other-pi")
    told = little_stack.run("restore --runtag latest --dry-run")
    assert "Restore z (" in told.stdout, told.stderr


def test_nothing_is_said_of_what_is_named_or_older(pi):
    """Whoever names a set means it; and a newer good one ends it."""
    for line in ("verify --runtag first", "show first", "restore --runtag first --dry-run"):
        assert "PASSED OVER" not in pi.run(line).stderr
    time.sleep(1)
    assert pi.run("backup --runtag third").returncode == 0
    told = pi.run("verify")
    assert (told.returncode, told.stderr) == (0, "")


def test_what_is_passed_over_elsewhere_is_told(little_stack, tmp_path):
    """On the machine itself, and in each other vault; a set that has a good copy is none."""
    backups, nas, usb = little_stack.folder / "backups", tmp_path / "nas", tmp_path / "usb"
    with little_stack.settings.open("a") as stream:
        for each in (nas, usb):
            stream.write(f'[[vaults]]\nname = "{each.name}"\nkind = "folder"\nfolder = "{each}"\n')
    for each in (backups, nas, usb):
        each.mkdir()
        put_set(each, NOW - 2 * DAY, runtag=GOOD)
    put_bad(backups, "unfinished")
    put_bad(usb, "incomplete", NOW - DAY / 2, "lacking")
    (backups / f"{GOOD}.general-backup.tar.gz").unlink()
    told = " ".join(little_stack.run("restore --runtag latest --dry-run").stderr.split())
    assert f"PASSED OVER: {BAD} in this machine:backups, which is newer, is unfinished" in told
    assert f"If no run is active, finish it: inv backup --runtag '{BAD}'." in told
    assert f"--runtag '{BAD}' --from here" in told
    assert "PASSED OVER: lacking in usb, which is newer, is incomplete: no general part." in told
    assert "--runtag 'lacking' --from usb" in told
    assert f"OVER: {GOOD}" not in told
    for line in ("rehearse --runtag latest", "show latest"):
        told = " ".join(little_stack.run(line).stderr.split())
        assert f"PASSED OVER: {BAD} here, which is newer, is unfinished" in told
        assert "'lacking' --at usb" in told


def test_a_set_that_holds_nothing_is_not_restored(little_stack):
    """Its run died before an archive was there: it is refused before anything is stopped."""
    backups = little_stack.folder / "backups"
    backups.mkdir()
    put_set(backups, NOW - 2 * DAY, runtag=GOOD)
    put_bad(backups, "unfinished")
    (backups / f"{BAD}.general-backup.tar.gz").unlink()
    for flag in ("--yes", "--dry-run"):
        told = little_stack.run(f"restore --runtag {BAD} {flag}")
        assert told.returncode == 13, told.stderr
        assert f"{BAD} in this machine:backups has no archives, so" in " ".join(
            told.stderr.split()
        )
    assert not list((little_stack.folder / "restore").glob("previous-*"))
    told = " ".join(little_stack.run("restore --runtag latest --dry-run").stderr.split())
    assert f"If no run is active, finish it: inv backup --runtag '{BAD}'." in told
    assert "To use it anyway:" not in told


def test_a_pull_of_the_latest_says_what_it_leaves(tmp_path, start_sshd):
    """What is newer on the other machine and is not taken is named; the rest arrives, with 3."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    pi.backups.mkdir()
    laptop = Laptop(tmp_path / "laptop", pi)
    put_set(pi.backups, NOW - 2 * DAY, runtag=GOOD)
    put_bad(pi.backups, "incomplete")
    put_bad(pi.backups, "unfinished", NOW - DAY / 2, "half")
    told = laptop.run("pull --host pi --runtag latest --dry-run")
    assert (told.returncode, told.stdout) == (
        3,
        f"would be fetched into shelf: {GOOD} (658 bytes)\n",
    ), told.stderr
    said = " ".join(told.stderr.split())
    assert "PASSED OVER: half in pi:backups, which is newer, is unfinished" in said
    assert "If no run is active, finish it: inv backup --host pi --runtag 'half'." in said
    assert f"no general part. To complete it: inv backup --host pi --runtag '{BAD}'. To" in said
    assert f"To use it anyway: --runtag '{BAD}'." in said
