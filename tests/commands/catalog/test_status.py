"""The line for a monitor: good and young in every place, or the alarm; nothing else."""

import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from contexts import put_set

from iotstack_invoke.commands.catalog.status import Seen, judge_status
from iotstack_invoke.environment.environment import newest_good
from iotstack_invoke.hosts.local import LocalHost, holder_ended, locked

HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
LIMIT = 26 * HOUR


@pytest.fixture
def see(tmp_path):
    """Return what is seen in a place that holds sets of these ages."""

    def look(place, *hours, **given):
        folder = tmp_path / place
        folder.mkdir()
        for each in hours:
            put_set(folder, NOW - each * HOUR, **given)
        return Seen(place, newest_good(LocalHost(str(folder)), str(folder), NOW))

    return look


def test_a_young_backup_in_every_place_is_good(see):
    """The line names the newest backup, its age, and the copies of it."""
    here, nas = see("here", 3, 27), see("nas", 3)
    assert judge_status([here, nas], NOW, LIMIT) == (
        True,
        "2026-11-23_1100 is 3 hours old, complete; vaults: nas complete",
    )
    assert judge_status([see("usb", 0, warnings=("w",))], NOW, LIMIT) == (
        True,
        "usb: 2026-11-23_1400 was made just now, warnings",
    )


def test_what_failed_its_verification_is_no_good_backup(tmp_path):
    """The newest set that is known as damaged is passed over."""
    for age in (3, 27):
        put_set(tmp_path, NOW - age * HOUR)
    failed = {"2026-11-23_1100": "2026-11-23T11:00:00Z"}
    newest = newest_good(LocalHost(str(tmp_path)), str(tmp_path), NOW, failed=failed)
    assert newest.good.runtag == "2026-11-22_1100"


def test_an_older_copy_is_told_with_its_age(see):
    """A vault that has only yesterday's backup is good within the limit, and says so."""
    good, line = judge_status([see("here", 3), see("nas", 26)], NOW, LIMIT)
    assert good
    assert line.endswith("vaults: nas 2026-11-22_1200 is 26 hours old, complete")


YOUNG = "2026-11-23_1100 is 3 hours old, complete"
OLD = "2026-11-22_0700 is 31 hours old, complete"
NONE = "no good backup within 26 h"
AHEAD = "dated in the future, so not counted"


@pytest.mark.parametrize(
    ("ages", "told"),
    [
        (([31], [3]), f"here: {NONE}: {OLD}; nas: {YOUNG}"),
        (([3], [31]), f"nas: {NONE}: {OLD}; here: {YOUNG}"),
        (([], [3]), f"here: {NONE}: none; nas: {YOUNG}"),
        (([3], []), f"nas: {NONE}: none; here: {YOUNG}"),
        (([31], []), f"{NONE}: here: {OLD}; nas: none"),
        (
            ([-9], [3]),
            f"here: {NONE}: none; nas: {YOUNG}; {AHEAD}: 2026-11-23_2300 here",
        ),
    ],
)
def test_one_place_without_a_young_backup_is_an_alarm(see, ages, told):
    """The line names the place, what it has, the limit, and what the other place has."""
    here, nas = ages
    good, line = judge_status([see("here", *here), see("nas", *nas)], NOW, LIMIT)
    assert not good
    assert line == told


def test_a_place_that_cannot_be_read_is_not_said_to_have_no_backup(see):
    """A good backup is here; of the vault nothing is known."""
    away = Seen("nas", trouble="nas (nas.local) is unreachable.")
    good, line = judge_status([see("here", 3), away], NOW, LIMIT)
    assert not good
    assert line == (
        "nas: no recent good backup can be seen there: nas (nas.local) is unreachable; "
        f"here: {YOUNG}"
    )


@pytest.mark.parametrize(
    ("seconds", "told"), [(60, "1 min"), (5400, "1.5 h"), (6000, "100 min"), (93600, "26 h")]
)
def test_the_limit_is_told_as_people_say_it(see, seconds, told):
    """In hours, or else in minutes."""
    _, line = judge_status([see("here", 99)], NOW, timedelta(seconds=seconds))
    assert line.startswith(f"no good backup within {told}: here: ")


def test_a_future_date_beside_a_young_backup_is_told(see):
    """A set from the future is no alarm where another one is good, but the line names it."""
    good, line = judge_status([see("here", 3, -9)], NOW, LIMIT)
    assert good
    assert line.endswith("dated in the future, so not counted: 2026-11-23_2300 here")


# The program


def young(little_stack, place=None, **given):
    """Put a set of an hour ago beside the stack, or into another folder."""
    folder = place or little_stack.folder / "backups"
    folder.mkdir(exist_ok=True)
    put_set(folder, datetime.now(UTC) - HOUR, **given)


def alarmed(told, *words):
    """Check that there was one line on stdout, nothing else, and exit 2."""
    assert (told.returncode, told.stderr) == (2, "")
    (line,) = told.stdout.splitlines()
    assert line.startswith("CRITICAL ")
    for each in words:
        assert each in line


def test_the_program_ends_with_0_or_2(little_stack):
    """A young backup is one line and 0; none, and one that is too old, one line and 2."""
    alarmed(little_stack.run("status"), "no good backup within 26 h: here: none")
    young(little_stack)
    told = little_stack.run("status --max-age 26h")
    assert (told.returncode, told.stderr) == (0, "")
    (line,) = told.stdout.splitlines()
    assert line.startswith("OK ")
    assert "is 1 hour old, complete" in line
    for limit in ("30min", "30m"):
        alarmed(little_stack.run(f"status --max-age {limit}"), "within 0.5 h", "is 1 hour old")


def test_a_wrong_folder_of_the_stack_is_named(little_stack):
    """It is not taken for a stack of which no backup was made."""
    told = little_stack.settings.read_text().replace("/IOTstack", "/nowhere")
    little_stack.settings.write_text(told)
    folder = little_stack.folder.with_name("nowhere")
    told = little_stack.run("status")
    assert told.returncode == 2
    assert f"; no stack found in {folder} ([stack] folder in hosts.toml)" in told.stdout
    assert not folder.exists()


def test_whatever_is_wrong_is_an_alarm(little_stack):
    """Settings, flags and vaults that are wrong are one line and 2, never another code."""
    young(little_stack)
    alarmed(little_stack.run("status --max-age 26"), "'26' is not a duration")
    alarmed(
        little_stack.run("status --at hare"),
        "--at hare: use one of here. Did you mean here?",
    )
    with little_stack.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "/no/such"\n')
    alarmed(
        little_stack.run("status"),
        "usb: no recent good backup can be seen there: The folder of vault 'usb' is missing: /no/such",
    )
    assert little_stack.run("status --at here").returncode == 0
    little_stack.settings.write_text("[stak]\n[vaults]\n")
    alarmed(little_stack.run("status"), "has mistakes", "did you mean 'stack'?", "vaults")


def test_one_finding_of_several_places_is_told_once(little_stack, tmp_path):
    """The places before it; and `all` is no place, since all are asked without it."""
    now = datetime.now(UTC)
    places = [little_stack.folder / "backups", tmp_path / "nas", tmp_path / "usb"]
    with little_stack.settings.open("a") as stream:
        for each in places[1:]:
            stream.write(f'[[vaults]]\nname = "{each.name}"\nkind = "folder"\nfolder = "{each}"\n')
    for each in places:
        each.mkdir()
        put_set(each, now - 2 * HOUR, runtag="old", more={"influx": {}})
        put_set(each, now - HOUR, runtag="new")
    line = little_stack.run("status").stdout
    assert line.startswith("WARNING here, nas, usb: new is missing the influx part")
    assert line.count("new is missing") == 1
    alarmed(
        little_stack.run("status --at all"),
        "--at all: use one of here, nas, usb; default: every place.",
    )


def test_a_vault_asked_by_name_may_hold_another_machines(little_stack, tmp_path):
    """From a laptop, `--at` a vault tells of the backups of whoever made them."""
    vault = tmp_path / "usb"
    young(little_stack, vault, host="other-pi")
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{vault}"\n')
    young(little_stack)
    alarmed(
        little_stack.run("status"),
        f"usb: no good backup within 26 h: none of {socket.gethostname()}; here: ",
    )
    told = little_stack.run("status --at usb")
    assert (told.returncode, told.stdout.startswith("OK usb: ")) == (0, True)


def test_what_is_not_covered_is_a_warning_to_a_monitor(little_stack):
    """A database that nobody saves, or a folder elsewhere, until hosts.toml says what to do."""
    little_stack.runs(mongo="mongo:7", nodered="nodered", mounts={"nodered": [("/opt", "/opt")]})
    assert little_stack.run("backup --runtag x").returncode == 3
    told = little_stack.run("status")
    assert told.returncode == 1
    assert told.stdout.startswith("WARNING here: 2 things not covered (inv show 'x'); x was made")
    with little_stack.settings.open("a") as stream:
        stream.write(
            '[[stack.exclude]]\npath = "/opt"\nreason = "known"\n'
            '[[services]]\nname = "mongo"\nkind = "stop"\n'
        )
    assert little_stack.run("backup --runtag y").returncode in (0, 3)
    assert little_stack.run("status").stdout.startswith("OK y was made")


@pytest.mark.parametrize("manifest", [True, False])
def test_a_newest_set_that_is_damaged_is_told(little_stack, manifest):
    """With what the older one lacks; where no good one is left, the alarm names it."""
    backups = little_stack.folder / "backups"
    little_stack.runs(mongo="mongo:7")
    old, new = "2020-01-01_1000", f"{datetime.now():%Y-%m-%d_%H%M}"
    assert little_stack.run(f"backup --runtag {old}").returncode == 3
    time.sleep(1.1)  # two sets of one second are of one age
    assert little_stack.run(f"backup --runtag {new}").returncode == 3
    bad = backups / f"{new}.{'general-backup.tar.gz' if manifest else 'manifest.json'}"
    bad.write_bytes(bad.read_bytes()[:-9])
    told = little_stack.run("status")
    newer = f"{new}, which is newer, is damaged (inv show '{new}')"
    assert told.returncode == 1
    assert told.stdout.startswith(
        f"WARNING here: {newer}; 1 thing not covered (inv show '{old}'); {old} was made"
    )
    for each in backups.glob(f"{old}.*"):
        each.unlink()
    alarmed(little_stack.run("status"), "here: none", f"here: {new} is damaged")


@pytest.mark.parametrize("at", ["", "--at usb"])
def test_a_copy_whose_manifest_cannot_be_read_is_told(little_stack, tmp_path, at):
    """As one is that has a damaged archive; not one of which nobody knows whose it is."""
    backups, usb = little_stack.folder / "backups", tmp_path / "usb"
    now = datetime.now(UTC)  # the same for both, or a second may begin between them
    for folder in (backups, usb):
        folder.mkdir()
        for tag, hours in (("old", 2), ("new", 1)):
            put_set(folder, now - hours * HOUR, runtag=tag)
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{usb}"\n')
    assert little_stack.run(f"status {at}").returncode == 0
    (usb / "new.manifest.json").write_text("")
    told = little_stack.run(f"status {at}")
    newer = "its copy of new, which is newer, is damaged (inv show 'new')"
    assert told.returncode == 1
    assert told.stdout.startswith(f"WARNING usb: {newer}; ")
    for each in backups.glob("new.*"):
        each.unlink()
    assert little_stack.run(f"status {at}").returncode == (1 if at else 0)


KILLED = """
import os, runpy, signal
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
runpy.run_module("iotstack_invoke", run_name="__main__", alter_sys=True)
"""


def test_a_backup_that_was_killed_is_told_at_once(little_stack):
    """A monitor does not learn of it only when the backup before is too old."""
    assert little_stack.run("backup --runtag good").returncode == 0
    words = (sys.executable, "-c", KILLED, "backup", "--runtag", "half way")
    assert subprocess.run(words, env=little_stack.environment, check=False).returncode == -9
    told = little_stack.run("status")
    assert told.returncode == 1
    assert told.stdout.startswith(
        "WARNING here: half way, which is newer, is unfinished: its run was interrupted (inv backup "
        "--runtag 'half way' finishes it); good was made just now"
    )
    assert little_stack.run("backup --runtag 'half way'").returncode == 0
    assert little_stack.run("status").stdout.startswith("OK half way was made just now")


def test_a_backup_that_is_at_work_is_no_warning(little_stack):
    """Every night has such a moment: the line says so, and the code is 0."""
    assert little_stack.run("backup --runtag good").returncode == 0
    backups = little_stack.folder / "backups"
    (backups / "2100-01-01_0000.unfinished.jsonl").write_text("{}\n")
    with locked(f"{backups}/.lock", "a backup"):
        told = little_stack.run("status")
    assert told.returncode == 0
    assert told.stdout.startswith("OK good was made just now, complete; 2100-01-01_0000, which is")
    assert "is unfinished: its run is active or was interrupted (inv backup" in told.stdout


@pytest.mark.parametrize("content", ["", "[" * 4000, '{"pid": "x"}', "{}", '{"pid": 1}'])
def test_a_lock_that_names_nobody_is_taken_for_held(tmp_path, content):
    """Where nobody can tell, a run may be at work."""
    lock = tmp_path / "lock"
    assert not holder_ended(str(lock))
    lock.write_text(content)
    assert not holder_ended(str(lock))
