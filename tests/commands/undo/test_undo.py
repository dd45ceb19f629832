"""Which change `inv undo` takes back, and the names that keep their order."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import folders
import pytest
from contexts import is_asleep, until
from restores import KILLING_MV, flows, killed_amid_the_swap, restored_once

from iotstack_invoke.commands.restore.target_checks import time_stamp
from iotstack_invoke.commands.shared.restore_id import STAMP_FORM, change_in, change_of
from iotstack_invoke.commands.undo.gone import (
    PUT_BACK,
    Fate,
    cannot_be_back,
    lines_keeping_used,
    lines_without,
)
from iotstack_invoke.commands.undo.undo import _last_journal, journal_of, not_finished, undo
from iotstack_invoke.core.errors import NotFound
from iotstack_invoke.engine.journal import owed_in
from iotstack_invoke.environment.stack_host import StackHost, locked_target
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.trust import Trust
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.settings.model import load_settings, read_settings
from iotstack_invoke.stack.kept_until import keep_until


@pytest.fixture
def target(tmp_path):
    return StackHost(LocalHost(str(tmp_path)), "pi", str(tmp_path), "test", (), ("docker",))


def keep(target, name, file="journal", mtime=0):
    """Let a change leave a folder with a file, and return the file."""
    path = os.path.join(target.folder, "restore", f"previous-{name}", file)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as stream:
        stream.write("x")
    os.utime(path, (mtime, mtime))
    return path


def test_nothing_to_undo(target):
    """Without any change, and with folders that hold none."""
    assert _last_journal(target) == ""
    keep(target, "t1-20261123T110000Z", "docker-compose.yml")
    assert _last_journal(target) == ""


def test_the_newest_is_undone_whatever_the_dates_of_files(target):
    """The order is that of the names, which say when each began."""
    keep(target, "z9-20261120T110000Z", mtime=9)
    newest = keep(target, "influxdb-20261123T110000Z", mtime=1)
    keep(target, "t1-20261122T110000Z", mtime=5)
    assert _last_journal(target) == newest


def test_nothing_is_undone_past_what_is_gone(target):
    """Where the newest has no old data any more, an older one is not taken for it."""
    older = keep(target, "t1-20261122T110000Z")
    keep(target, "influxdb-20261123T110000Z", "removed")
    with pytest.raises(NotFound, match="influxdb-20261123T110000Z, cannot be"):
        _last_journal(target)
    newer = keep(target, "t2-20261124T110000Z")
    assert _last_journal(target) == newer
    os.unlink(newer)
    os.unlink(keep(target, "influxdb-20261123T110000Z", "removed"))
    assert _last_journal(target) == older


def test_what_an_undo_put_aside_is_in_nobodys_way(target):
    """Also when its data were removed by age, and only the mark of that is left."""
    keep(target, "t1-20261120T110000Z-undone", "removed")
    newest = keep(target, "t2-20261122T110000Z")
    assert _last_journal(target) == newest


def test_names_go_on_in_order_whatever_the_clock(target):
    """A clock that was set back gives no name that sorts before an older one."""
    assert time_stamp(target) >= "2026"
    keep(target, "t1-20990101T000000Z")
    keep(target, "t2-20990101T000005Z-undone")
    assert time_stamp(target) == "20990101T000006Z"
    assert time_stamp(target, "20990101T000007Z") == "20990101T000007Z"
    assert time_stamp(target, "20990101T000005Z") == "20990101T000006Z"
    assert datetime.strptime(time_stamp(target), STAMP_FORM).replace(tzinfo=UTC).year == 2099


# A restore that was killed amid the swap


def test_the_way_back_by_hand(little_stack):
    """The commands of docs/recovery.md, pasted: all is as it was, and nothing is owed any more."""
    restored_once(little_stack)
    (little_stack.folder / "volumes/nodered/flows.json").write_text("[3]\n")
    killed_amid_the_swap(little_stack)
    assert not (little_stack.folder / "volumes/nodered").exists()
    said = pasted(little_stack)
    assert flows(little_stack) == "[3]\n", said


def pasted(stack):
    """Paste the commands of docs/recovery.md for a stack that owes something; return what is said.

    Nothing is owed any more then.
    """
    said = paste(stack, "restore/.journal", ". ./way-back.sh")
    (stack.folder / "restore/.journal").unlink()
    told = stack.run("undo --yes")
    assert (told.returncode, "There is nothing to undo on" in told.stderr) == (10, True)
    return said


def paste(stack, *words):
    """Paste the blocks of docs/recovery.md that hold these words; return what is said."""
    text = folders.CHECKOUT.joinpath("docs/recovery.md").read_text()
    blocks = re.findall(r"```sh\n(.+?)```", text, re.DOTALL)
    chosen = [next(each for each in blocks if word in each) for word in words]
    env = {**stack.environment, "HOME": str(stack.folder.parent)}
    done = subprocess.run(
        ["bash", "-u"],
        input="".join(chosen),
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    return done.stderr


def test_the_lock_of_who_is_gone_is_let_go_by_hand(little_stack):
    """The sshd of a host notices late that a laptop is off; until then every run is told to wait."""
    lock = little_stack.folder / "backups/.lock"
    lock.parent.mkdir()
    holding = ["flock", lock, "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert little_stack.run("undo").returncode == 11
        paste(little_stack, "backups/.lock")
        assert little_stack.run("undo").returncode == 10


@pytest.mark.parametrize(
    "stop", ["-n -t */.previous-t2-????????T??????Z -- *", "-n -t DRIVE -- *"]
)
def test_the_way_back_of_a_drive_by_hand(little_stack, small_disk, stop):
    """While its entries are moved aside, or behind that; what the backup left out stays as well."""
    modules = little_stack.folder / "volumes/nodered/modules"
    modules.mkdir()
    (modules / "red").write_text("mine")
    with little_stack.settings.open("a") as stream:
        stream.write("[[stack.exclude]]\npath = 'volumes/nodered/modules'\nreason = 'x'\n")
        stream.write(f"[[stack.include]]\npath = '{small_disk}'\n")
    restored_once(little_stack)
    small_disk.chmod(0o750)
    (small_disk / "film").write_text("old")
    (small_disk / "gone").write_text("old")
    assert little_stack.run("backup --runtag t2").returncode == 0
    (little_stack.folder / "volumes/nodered/flows.json").write_text("[3]\n")
    (small_disk / "film").write_text("new")
    (small_disk / "since").write_text("new")
    (small_disk / "gone").unlink()
    small_disk.chmod(0o700)
    killed_amid_the_swap(
        little_stack,
        "restore --runtag t2 --from here --yes",
        stop.replace("DRIVE", str(small_disk)).replace(" ", "\\ "),
        KILLING_MV.replace('"$2"', '"$*"'),
    )
    with (little_stack.folder / "restore/.journal").open("a") as journal:
        journal.write('{"job": "torn')
    said = pasted(little_stack)
    assert flows(little_stack) == "[3]\n", said
    assert (modules / "red").read_text() == "mine", said
    there = (each for each in small_disk.iterdir() if not each.name.startswith(".previous-t1-"))
    held = {each.name: each.read_text() for each in there if each.is_file()}
    assert held == {"film": "new", "since": "new"}, said
    assert small_disk.stat().st_mode & 0o777 == 0o700
    left = {each.name for each in small_disk.glob(".previous-t2-*")}
    assert all(each.endswith("-since") for each in left), said


def test_a_backup_that_undoes_a_dead_restore_says_so(little_stack):
    """On the screen, in its log and manifest, and in the log of the restore, which ends."""
    restored_once(little_stack)
    dead = killed_amid_the_swap(little_stack)
    found = little_stack.run("doctor").stdout
    assert "the restore of t1 that began at 20" in found
    assert "start no container by hand; undo it first" in " ".join(found.split())
    told = little_stack.run("status")
    assert told.returncode == 1
    assert re.match(
        r"WARNING the restore of t1 that began at \S+ \S+ is running or was interrupted \(inv undo\)",
        told.stdout,
    )
    listed = little_stack.run("undo --list").stdout.splitlines()
    first, second = (line for line in listed if "before the restore of t1" in line)
    assert "the restore of t1 is running or was interrupted: inv undo undoes it; stays" in first
    assert "to go back to it: inv undo --last-restore, after the other is undone; stays" in second
    for line in ("backup --runtag t2 --dry-run", "restore --runtag t1 --dry-run"):
        told = little_stack.run(line)
        said = " ".join(told.stderr.split())
        assert told.returncode == 0, said
        assert "the restore of t1 that began at 20" in said
        assert "is running or was interrupted. If interrupted, it is undone" in said
    assert dead.exists()
    told = little_stack.run("backup --runtag t2")
    said = "Rolled back an interrupted run on this machine: the restore of t1 that began at 20"
    assert told.returncode == 3, told.stderr
    assert said in told.stderr
    assert flows(little_stack) == "[1]\n"
    backups = little_stack.folder / "backups"
    assert said in (backups / "t2.backup-log.txt").read_text()
    assert said in json.loads((backups / "t2.manifest.json").read_text())["warnings"][0]
    assert not dead.exists()
    assert said in dead.with_suffix("").read_text().splitlines()[-1]
    assert little_stack.run("backup --runtag t3").returncode == 0


def test_an_undo_names_what_it_undoes(little_stack):
    """With --yes too: a person who was told of a dead restore sees that it is another one."""
    restored_once(little_stack)
    (kept,) = (little_stack.folder / "restore").glob("previous-t1-*")
    dead = killed_amid_the_swap(little_stack)
    told = little_stack.run("undo --yes")
    assert told.returncode == 0, told.stderr
    assert (
        "Rolled back an interrupted run on this machine: the restore of t1 that began at"
        in told.stderr
    )
    assert not dead.exists()
    assert flows(little_stack) == "[1]\n"
    told = little_stack.run("undo")
    began = datetime.strptime(kept.name[-16:], STAMP_FORM).replace(tzinfo=UTC).astimezone()
    what = f"This undoes the restore of t1 that began at {began:%Y-%m-%d %H:%M:%S}."
    assert told.returncode == 13
    assert what in told.stdout
    assert flows(little_stack) == "[1]\n"
    little_stack.environment["IOTSTACK_WATCHED"] = "1"  # as at a terminal
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 0, told.stderr
    assert what in told.stdout
    assert "is in the state before the restore of t1 that began at" in told.stdout
    assert "interrupted" not in told.stderr
    assert flows(little_stack) == "[2]\n"


def test_who_owns_what_is_owed_is_looked_at_once(little_stack, monkeypatch):
    """By what is undone as by what is asked: over SSH each look is a round trip."""
    restored_once(little_stack)
    killed_amid_the_swap(little_stack)
    monkeypatch.setenv("PATH", little_stack.environment["PATH"])
    looks = []
    look = Trust.stat
    monkeypatch.setattr(Trust, "stat", lambda self, paths: looks.append(1) or look(self, paths))
    settings = load_settings(str(little_stack.settings))
    assert undo(settings, "", Report(), yes=True) == 0
    assert flows(little_stack) == "[1]\n"
    assert len(looks) == 1


def test_a_restore_that_went_well_is_not_undone_by_accident(little_stack):
    """Whoever clears away what a dead run left gets 10 where none did, and what takes one back."""
    restored_once(little_stack)
    told = little_stack.run("undo --yes")
    assert told.returncode == 10
    assert (
        "nothing to undo on this machine: the last change, the restore of t1 that began at"
        in told.stderr
    )
    assert "inv undo --last-restore --yes" in told.stderr
    for words, flags in (("undo", "--last-restore --yes"), ("undo --last-restore", "--yes")):
        told = little_stack.run(words)  # without a terminal: what it says to add takes it back
        assert (told.returncode, f"No terminal to confirm on; add {flags}." in told.stderr) == (
            13,
            True,
        )
    assert flows(little_stack) == "[1]\n"
    killed_amid_the_swap(little_stack)
    told = little_stack.run("undo --last-restore --yes")
    assert "Nothing else was undone. To undo a successful one: inv undo --last" in told.stdout
    assert flows(little_stack) == "[1]\n"
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 0
    assert "another disk). To see how long they stay: inv undo --list\n" in told.stdout
    assert flows(little_stack) == "[2]\n"


def test_what_a_dead_run_moved_aside_may_be_gone(little_stack):
    """Each run stops at it, and tells the one command that undoes the rest and lets it be."""
    other = little_stack.folder / "volumes/other"
    other.mkdir()
    (other / "x").write_text("old")
    restored_once(little_stack)
    (other / "x").write_text("new")
    killed_amid_the_swap(little_stack, moved="*/stack/volumes/other")
    state = max((little_stack.folder / "restore").glob("previous-t1-*"))
    shutil.rmtree(state / "volumes/nodered")
    (little_stack.folder / "volumes/nodered/flows.json").write_text("[4]\n")
    assert re.search(
        r"was interrupted, and some of the data it replaced are gone \(inv undo --leave-gone\)",
        little_stack.run("status").stdout,
    )
    found = " ".join(little_stack.run("doctor").stdout.split())
    assert (
        "was interrupted, and the replaced data of volumes/nodered are gone: no run starts"
        in found
    )
    assert "put them back, or inv undo --leave-gone" in found
    dry = ("backup --runtag t2 --dry-run", "restore --runtag t1 --dry-run")
    for line in ("backup --runtag t2", "undo --yes", *dry):
        told = little_stack.run(line)
        assert told.returncode == 1
        assert "volumes/nodered is gone" in told.stderr
        assert "Nothing was undone: the steps to undo are in" in told.stderr
        assert "inv undo --leave-gone" in told.stderr
        assert (flows(little_stack), (other / "x").read_text()) == ("[4]\n", "old")
    listed = little_stack.run("undo --list").stdout
    assert "some of what it replaced was removed: inv undo --leave-gone undoes it" in listed
    assert "being undone" not in listed
    told = little_stack.run("undo --leave-gone")
    assert told.returncode == 3, told.stderr
    assert "volumes/nodered cannot be put back. It was not changed." in told.stderr
    assert "except for the data that are gone" in told.stdout
    assert "in the state before it." not in told.stderr
    assert (flows(little_stack), (other / "x").read_text()) == ("[4]\n", "new")
    assert little_stack.run("backup --runtag t2").returncode == 0


def owe(stack, *steps):
    """Let a stack owe steps: each a kind, and what a journal holds of it."""
    lines = (
        json.dumps({"job": "pi:x", "step": kind, "fields": {"host_role": "pi", **of}})
        for kind, of in steps
    )
    journal = stack.folder / "restore/.journal"
    journal.write_text("".join(f"{line}\n" for line in lines))
    journal.chmod(0o600)


def swapped(kind, live, state, aside):
    """A step as `owe` takes it, whose old data lie in a state, and its staged ones nowhere."""
    paths = {"live": str(live), "aside": f"{state}/{aside}", "used": f"{state}-undone/{aside}"}
    return kind, paths | ({"staged": f"{state}/none"} if kind == "SwapItem" else {})


def refused_for_gone(stack):
    """See that an undo says what is gone, and does nothing; do it with the flag that it names."""
    before = stack.tree()
    told = stack.run("undo --yes")
    assert told.returncode == 1, told.stdout
    assert "is gone, so" in told.stderr
    assert "Nothing was undone" in told.stderr
    now = stack.tree()
    changed = {path for path in {*before, *now} if before.get(path) != now.get(path)}
    assert not [path for path in changed if "/backups" not in path]
    told = stack.run("undo --yes --leave-gone")
    assert told.returncode == 3, told.stderr
    assert "cannot be put back. It was not changed." in told.stderr


def test_nothing_of_a_folder_whose_old_one_is_gone_is_put_back(little_stack):
    """Its database would be: what is live of it was put aside, and the folder lacked it."""
    data, state = little_stack.folder / "volumes/sql/db", "restore/previous-t1-20261123T110000Z"
    state = little_stack.folder / state
    (state / "databases").mkdir(parents=True)
    (state / "databases/sql.new").write_text("")
    data.mkdir(parents=True)
    (data / "rows").write_text("live")
    owe(
        little_stack,
        ("MakeAside", {"path": str(state)}),
        swapped("SwapItem", data.parent, state, "volumes/sql"),
        swapped("SwapItem", data, state, "databases/sql"),
    )
    refused_for_gone(little_stack)
    assert (data / "rows").read_text() == "live"
    assert not Path(f"{state}-undone").exists()


def test_a_reload_whose_old_data_are_gone_keeps_its_dump(little_stack):
    """It was told as undone, and the dump removed; nothing else may hold the data."""
    data, restore = little_stack.folder / "volumes/influxdb/data", little_stack.folder / "restore"
    stage, state = restore / "influxdb-x", restore / "previous-influxdb-20261123T110000Z"
    for each in (stage, state, data.parent):
        each.mkdir(parents=True)
    (stage / "dump").write_text("all")
    data.write_text("")
    owe(
        little_stack,
        ("UseStage", {"folders": [str(stage), f"{state}.users"]}),
        ("MakeAside", {"path": str(state)}),
        ("MakeFolder", {"path": str(stage), "like": ""}),
        ("MakeFolder", {"path": str(data.with_name(".fresh")), "like": ""}),
        swapped("PutAway", data, state, "volumes/influxdb/data"),
    )
    data.with_name(".fresh").mkdir()
    refused_for_gone(little_stack)
    assert (stage / "dump").read_text() == "all"
    assert not data.with_name(".fresh").exists()


def test_an_old_state_that_lacks_something_is_not_gone_back_to(little_stack):
    """It would stop halfway, with the stack away: what lacks is named before anything is done."""
    other = little_stack.folder / "volumes/other"
    other.mkdir()
    restored_once(little_stack, lambda: shutil.rmtree(other))
    (kept,) = (little_stack.folder / "restore").glob("previous-t1-*")
    aside = kept / "volumes/nodered"
    aside.rename(kept / "elsewhere")
    before = little_stack.tree()
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 13, told.stdout
    assert "cannot be fully undone: the data of volumes/nodered that it replaced were removed" in (
        told.stderr
    )
    assert f"removed since (from {aside}). Nothing was changed." in told.stderr
    assert "inv undo --last-restore --leave-gone undoes the rest" in told.stderr
    assert "removes, because" not in told.stdout
    now = little_stack.tree()
    assert {path for path in {*before, *now} if before.get(path) != now.get(path)} <= {
        str(little_stack.folder / "backups/.lock")
    }
    assert little_stack.run("backup --runtag t2").returncode == 0
    (kept / "elsewhere").rename(aside)
    assert little_stack.run("undo --last-restore --yes").returncode == 0
    assert (flows(little_stack), other.exists()) == ("[2]\n", False)


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_left_of_an_old_state_is_gone_back_to(little_stack, killed):
    """The rest is put back, what is gone stays as it is now, and the older state can be reached.

    Where that is killed, the next run goes on with it, and tells it as well.
    """
    other, folder = little_stack.folder / "volumes/other", little_stack.folder / "restore"
    other.mkdir()
    (other / "x").write_text("1")
    restored_once(little_stack)
    (other / "x").write_text("2")
    told = little_stack.run("restore --runtag t1 --from here --yes")
    assert told.returncode == 0, told.stderr
    (other / "x").write_text("3")
    (little_stack.folder / "volumes/nodered/flows.json").write_text("[3]\n")
    kept = max(folder.glob("previous-t1-*"))
    shutil.rmtree(kept / "volumes/nodered")
    line = "undo --last-restore --leave-gone --yes"
    listed = little_stack.run("undo --list").stdout.splitlines()
    way = "to go back to the rest of it: inv undo --leave-gone (gone: volumes/nodered)"
    assert way in listed[1]
    assert (
        "inv undo can go back to it after the newer ones are undone; stays until 20" in listed[2]
    )
    if killed:
        killed_amid_the_swap(little_stack, line, "*volumes/other")
        told = little_stack.run("backup --runtag t2")
    else:
        told = little_stack.run(line)
        assert "  restores to the previous state: docker" not in told.stdout
        assert "  restores to the previous state: volumes/other\n" in told.stdout
        assert (
            "leaves unchanged, because the previous state is gone: volumes/nodered" in told.stdout
        )
        assert "removes, because" not in told.stdout
        assert "except for the data that are gone" in told.stdout
    assert told.returncode == 3, told.stderr
    assert f"{kept}/volumes/nodered is gone, so" in told.stderr
    assert "volumes/nodered cannot be put back. It was not changed." in told.stderr
    assert (flows(little_stack), (other / "x").read_text()) == ("[3]\n", "2")
    assert (folder / f"{kept.name}-undone/volumes/other/x").read_text() == "3"
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 0, told.stderr
    assert (flows(little_stack), (other / "x").read_text()) == ("[2]\n", "1")
    assert (folder / f"{kept.name}-undone/volumes/other/x").read_text() == "3"


VOLUME = "/var/lib/docker/volumes/data"


@pytest.mark.parametrize(
    ("used", "fate", "kept"),
    [
        ("/s/restore/previous-t1-20261123T110000Z-undone/outside/x", "good", True),
        (f"{VOLUME}/.previous-t1-20261123T110000Z-undone/_data", "good", False),
        ("/s/restore/previous-t1-20261123T110000Z-undone/outside/x", "gone", False),
    ],
)
def test_a_volume_is_not_removed_with_what_was_live_in_it(used, fate, kept):
    """Where it stays as it is now, or was put aside in the volume's own folder: both went with it."""
    made = {"job": "pi:x", "step": "MakeVolume", "fields": {"host_role": "pi", "name": "data"}}
    other = {**made, "fields": {"host_role": "pi", "name": "other"}}
    fields = {"host_role": "pi", "live": f"{VOLUME}/_data", "aside": "/s/aside", "used": used}
    swap = {"job": "pi:x", "step": "SwapItem", "fields": fields}
    lines = [json.dumps(each) for each in (made, other, swap)]
    (step,) = (each for each in owed_in(lines) if each.step == "SwapItem")
    found = lines_without(lines_keeping_used(lines), [Fate(step, fate)])
    names = [e.fields["name"] for e in owed_in(found) if e.step == "MakeVolume"]
    assert names == (["data", "other"] if kept else ["other"])


def journaled(*steps):
    """The lines of a journal that holds steps: kind, what is live, where it was moved to."""
    of = ({"host_role": "pi", "live": live, "aside": aside} for _, live, aside in steps)
    told = ({"job": "pi:x", "step": kind} for kind, _, _ in steps)
    return [json.dumps(each | {"fields": fields}) for each, fields in zip(told, of, strict=True)]


@pytest.mark.parametrize(
    ("steps", "left", "undone"),
    [
        ("SwapItem v good, SwapItem w gone", "w", "v LeaveGone:w"),
        # A reload: the folder, and then the file that kept containers from starting on it.
        ("PutAway v good, SwapItem v gone", "", "v"),
        ("PutAway v gone, SwapItem v good", "v", "LeaveGone:v"),
        # A database in what was put in place before it, whose old data went with that.
        ("SwapItem v good, SwapItem v/db gone", "", "v"),
        ("SwapItem v new, SwapItem v/db gone", "", "v"),
        ("SwapItem v gone, SwapItem v/db good", "v", "LeaveGone:v"),
        ("SwapItem v gone, KeepLeftOut v left", "v", "LeaveGone:v"),
        ("SwapItem v good, KeepLeftOut v left", "", "v v"),
        ("SwapItem v gone, SwapItem vx good", "v", "LeaveGone:v vx"),
        ("StopContainers x left, SwapEntries v good", "", "x v"),
    ],
)
def test_what_stays_where_something_is_gone(steps, left, undone):
    """What it lies in is not put back by halves; what was moved aside before it is all there."""
    told = [each.split() for each in steps.split(", ")]
    lines = journaled(*((kind, live, f"aside/{n}") for n, (kind, live, _) in enumerate(told)))
    words = [word for kind, _, word in told if kind in PUT_BACK]
    owed = [each for each in owed_in(lines) if each.step in PUT_BACK]
    fates = [Fate(step, word) for step, word in zip(owed, words, strict=True)]
    assert " ".join(each.live for each in cannot_be_back(fates)) == left
    found = owed_in(lines_without(lines, fates))
    names = (f"{e.step}:" if e.step == "LeaveGone" else "" for e in found)
    assert " ".join(f"{n}{e.fields['live']}" for n, e in zip(names, found, strict=True)) == undone


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _text: "", "is empty"),
        (lambda text: text[:-20], "is damaged: cannot read line"),
        (
            lambda text: text.replace('"SwapItem"', '"SwapLater"'),
            "this version does not know this step:",
        ),
        (lambda text: re.sub('"live": "[^"]*', '"live": "/etc/x', text), "would act on /etc/x"),
    ],
)
def test_a_kept_journal_that_is_no_good_is_not_what_is_owed(little_stack, change, why):
    """Nothing was undone, and that was told as a success; or no run got any further after it."""
    restored_once(little_stack)
    (kept,) = (little_stack.folder / "restore").glob("previous-t1-*")
    text = (kept / "journal").read_text()
    (kept / "journal").write_text(change(text))
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 13, told.stdout
    assert why in told.stderr
    assert "Nothing was changed. What it replaced is in" in told.stderr
    assert little_stack.run("backup --runtag t2").returncode == 0
    (kept / "journal").write_text(text)
    assert little_stack.run("undo --last-restore --yes").returncode == 0
    assert flows(little_stack) == "[2]\n"


def test_a_folder_of_somebody_else_is_not_gone_back_to(target):
    """Its name tells no time, so no change of ours left it."""
    newest = keep(target, "t2-20261122T110000Z")
    keep(target, "zzz")
    assert _last_journal(target) == newest


def test_nor_to_one_that_no_rename_reaches(little_stack):
    """The folder was bound to its place since the restore: half a copy would look like it all."""
    restored_once(little_stack)
    volumes = little_stack.folder / "volumes"
    if subprocess.run(["mount", "--bind", volumes, volumes], check=False).returncode:
        pytest.skip("only root can mount a folder")
    try:
        told = little_stack.run("undo --last-restore --yes")
        assert told.returncode == 13, told.stdout
        assert "volumes/nodered is on another mount than" in told.stderr
        assert ", so they cannot be renamed. Nothing was changed. Unmount" in told.stderr
        assert not (little_stack.folder / "restore/.journal").exists()
        assert flows(little_stack) == "[1]\n"
    finally:
        subprocess.run(["umount", "--lazy", volumes], check=True)
    assert little_stack.run("undo --last-restore --yes").returncode == 0
    assert flows(little_stack) == "[2]\n"


@pytest.mark.parametrize("line", ["undo", "undo --yes", "undo --list", "reload-influxdb --yes"])
def test_nothing_is_made_where_no_stack_is(little_stack, tmp_path, line):
    """A wrong folder in hosts.toml is named, and stays what it is: not there."""
    wrong = tmp_path / "nowhere/x"
    told = little_stack.settings.read_text().replace(str(little_stack.folder), str(wrong))
    little_stack.settings.write_text(told)
    told = little_stack.run(line)
    assert (told.returncode, told.stdout) == (10, "")
    assert f"No stack found in {wrong} on this machine. Nothing was changed." in told.stderr
    assert not wrong.parent.exists()


@pytest.mark.parametrize("line", ["undo", "undo --yes", "undo --list"])
def test_nothing_is_made_in_a_folder_that_is_no_stack(little_stack, tmp_path, line):
    """It is there, but no backup and no restore has ever been in it: a lock would be the first."""
    settings = little_stack.settings.read_text()
    little_stack.settings.write_text(settings.replace(str(little_stack.folder), f"{tmp_path}/x"))
    (tmp_path / "x").mkdir()
    told = little_stack.run(line)
    assert told.returncode == (0 if "--list" in line else 10)
    assert str(tmp_path / "x") in told.stdout + told.stderr
    assert not [*(tmp_path / "x").iterdir()]


def test_without_docker_nothing_to_undo_is_just_that(little_stack):
    """Docker is asked for when something is to be undone, and not before."""
    assert little_stack.run("backup --runtag t0").returncode == 0
    little_stack.tool("docker", "echo 'permission denied' >&2; exit 1")
    assert little_stack.run("undo").returncode == 10
    little_stack.tool("docker", "exit 0")
    restored_once(little_stack)
    little_stack.tool("docker", "echo 'permission denied' >&2; exit 1")
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 13
    assert (
        "Docker on this machine cannot be used: permission denied. To find the cause: inv doctor"
        in told.stderr
    )
    assert flows(little_stack) == "[1]\n"


def test_a_folder_that_is_mounted_read_only_since_is_named(little_stack, read_only):
    """Once, with the command that mends it, and not as another mount of each folder in it."""
    restored_once(little_stack)
    read_only(little_stack.folder / "volumes")
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 13
    assert f"{little_stack.folder}/volumes is mounted read-only" in told.stderr
    assert (
        "Nothing was changed. When the disk works again: sudo mount -o remount,rw" in told.stderr
    )
    assert "another mount" not in told.stderr


@pytest.mark.parametrize("which", ["", "/backups"])
@pytest.mark.parametrize("line", ["undo --yes", "restore --runtag t1 --from here --yes"])
def test_a_disk_that_is_mounted_read_only_is_named(little_stack, read_only, which, line):
    """With the command that mends it, before anything is changed, and not in words of a shell."""
    assert little_stack.run("backup --runtag t1").returncode == 0
    path = f"{little_stack.folder}{which}"
    read_only(Path(path))
    told = little_stack.run(line)
    assert told.returncode == 13, told.stderr
    assert f"{path} is mounted read-only (the card may be failing" in told.stderr
    assert (
        "Nothing was changed. When the disk works again: sudo mount -o remount,rw" in told.stderr
    )
    assert "mkdir" not in told.stderr


@pytest.mark.parametrize("typed", ["this machine", "the host's name", "Ctrl-D"])
def test_an_undo_asks_for_the_name_of_the_host(little_stack, typed):
    """It tells before what it would put back, what it takes away, and where the rest stays."""
    new = little_stack.folder / "volumes/new"
    new.mkdir()
    restored_once(little_stack, new.rmdir)
    (kept,) = (little_stack.folder / "restore").glob("previous-t1-*")
    name = socket.gethostname()
    screen, terminal = pty.openpty()
    process = little_stack.start("undo", stdin=terminal, stdout=subprocess.PIPE)
    done = typed == "the host's name"
    keys = {"the host's name": f"{name}\n", "Ctrl-D": "\x04"}.get(typed, f"{typed}\n")
    os.write(screen, keys.encode())
    out, said = process.communicate(timeout=60)
    for each in (screen, terminal):
        os.close(each)
    assert "  restores to the previous state: volumes/nodered\n" in out
    assert "removes, because it did not exist before: volumes/new\n" in out
    assert f"  data stored since then are moved to: {kept}-undone\n" in out
    assert f"Type the host's name, {name}, to undo it there: " in out
    assert process.returncode == (0 if done else 13), said
    assert done or said.splitlines()[-1] == "Not confirmed; nothing was changed."
    assert flows(little_stack) == ("[2]\n" if done else "[1]\n")


def test_ctrl_c_at_the_question_is_told_on_a_line_of_its_own(little_stack):
    """It stood behind the question, where nobody reads it."""
    restored_once(little_stack)
    screen, terminal = pty.openpty()
    process = little_stack.start("undo", stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    told = b""
    while not told.endswith(b"to undo it there: "):
        told += os.read(screen, 1000)
    # Python hears of a signal that comes in front of the read only when that ends.
    until(lambda: is_asleep(process.pid))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert os.read(screen, 1000).startswith(b"\r\n")
    os.close(screen)


def test_a_restore_over_a_dead_one_has_it_in_its_log(little_stack):
    """What was undone before it is the first that its own log tells."""
    restored_once(little_stack)
    killed_amid_the_swap(little_stack)
    told = little_stack.run("restore --runtag t1 --from here --yes")
    assert told.returncode == 0, told.stderr
    assert "Rolled back an interrupted run on this machine: the restore of t1" in told.stderr
    logs = sorted((little_stack.folder / "backups").glob("t1.restore-*.log"))
    assert len(logs) == 3
    assert "undo: warning: Rolled back an interrupted run" in logs[-1].read_text().splitlines()[0]


def test_what_was_taken_out_of_a_stage_is_staged_anew(little_stack):
    """A stage from which a dead restore took something is no whole one for the next."""
    restored_once(little_stack)
    (little_stack.folder / "volumes/nodered/flows.json").write_text("[3]\n")
    killed_amid_the_swap(little_stack, moved="*/stack/volumes/nodered")
    assert not (little_stack.folder / "restore/t1/stack/volumes/nodered").exists()
    assert flows(little_stack) == "[1]\n"
    told = little_stack.run("restore --runtag t1 --from here --yes")
    assert told.returncode == 0, told.stderr
    assert flows(little_stack) == "[1]\n"
    assert little_stack.run("undo --last-restore --yes").returncode == 0
    assert flows(little_stack) == "[3]\n"


def test_an_undo_that_was_killed_is_gone_on_with(little_stack):
    """By the next backup as well, which never packs a stack that is half put back."""
    restored_once(little_stack)
    killed_amid_the_swap(little_stack, "undo --last-restore --yes")
    assert little_stack.run("backup --runtag t2").returncode == 3
    assert flows(little_stack) == "[2]\n"
    told = little_stack.run("undo --last-restore --yes")
    assert (told.returncode, "no restore or reload can be undone" in told.stderr) == (
        10,
        True,
    )
    assert flows(little_stack) == "[2]\n"


MORTAL = """
import os, signal
import iotstack_invoke.hosts.local as hosts
left = int(os.environ["KILLED_AFTER"])
def count():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
def mortal(name, counts=lambda *_: True):
    real = getattr(hosts.LocalHost, name)
    def told(self, *given, **more):
        done = real(self, *given, **more)
        if counts(*given):
            count()
        return done
    setattr(hosts.LocalHost, name, told)
for each in ("rename", "remove", "append"):
    mortal(each)
mortal("run", lambda command, *_: "flock" in command.argv)
"""


def test_an_undo_that_is_killed_anywhere_loses_no_promise(little_stack):
    """What a person asked to stay stays until it is put back, whichever step was the last."""
    stack, settings = little_stack, little_stack.settings.read_text()
    (stack.tools / "sitecustomize.py").write_text(MORTAL)
    killed, plain = True, dict(stack.environment)
    after = 0
    while killed:
        after += 1
        stack.settings.write_text(settings)
        if after == 1:
            restored_once(stack)
        else:
            assert stack.run("restore --runtag t1 --from here --yes").returncode == 0
        (kept,) = (stack.folder / "restore").glob("previous-t1-*Z")
        keep_until(LocalHost("/"), [str(kept)], 30, datetime.now(UTC))
        stack.settings.write_text(f"{settings}keep_previous = 0\nkeep_previous_days = 0\n")
        stack.environment = {
            **plain,
            "PYTHONPATH": str(stack.tools),
            "KILLED_AFTER": str(after),
        }
        told = stack.run("undo --last-restore --yes")
        killed = told.returncode == -9
        assert killed or told.returncode == 0, told.stderr
        stack.environment = plain
        assert stack.run("prune").returncode in (0, 3)
        if flows(stack) != "[2]\n" or (stack.folder / "restore/.journal").exists():
            told = stack.run("undo --last-restore --yes")
            assert (after, told.returncode) == (after, 0), told.stderr
        assert flows(stack) == "[2]\n"
        assert not list((stack.folder / "restore").glob("previous-t1-*Z"))
        stack.run("prune")  # what was live until then goes
    assert after > 5


def test_a_change_that_failed_is_undone_when_its_last_command_has_ended(
    target, tmp_path, monkeypatch
):
    """It may outlive the line that it came by, and work on what is being put back."""
    settings = read_settings({}, "")
    asked, ended, real = tmp_path / "asked", tmp_path / "ended", shutil.which("flock")
    (tmp_path / "backups").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/flock").write_text(f'#!/bin/sh\n: > {asked}\nexec {real} "$@"\n')
    (tmp_path / "bin/flock").chmod(0o755)
    script = 'echo works; until [ -e "$0" ]; do sleep 0.05; done; : > "$1"'
    words = [real, "--shared", target.guard, "sh", "-c", script, asked, ended]
    with locked_target(target, "test") as lock:
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        with subprocess.Popen(words, stdout=subprocess.PIPE) as orphan:
            assert orphan.stdout.readline() == b"works\n"
            journal_of(settings, target, lock).settle()
            has_ended = ended.exists()
            asked.touch()
        assert has_ended


def test_changes_of_one_second_have_a_name_each(little_stack):
    """One that died and three that went well, while the clock says one second: four logs stay."""
    (little_stack.tools / "sitecustomize.py").write_text(
        "import contextlib, datetime\n"
        "class Stopped(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return cls(2026, 11, 23, 11, tzinfo=tz)\n"
        "with contextlib.suppress(ImportError):\n"
        "    import iotstack_invoke.commands.restore.target_checks as checks\n"
        "    checks.datetime = Stopped\n"
    )
    little_stack.environment["PYTHONPATH"] = str(little_stack.tools)
    restored_once(little_stack)
    killed_amid_the_swap(little_stack)
    for _ in range(2):
        assert little_stack.run("restore --runtag t1 --from here --yes").returncode == 0
    logs = sorted((little_stack.folder / "backups").glob("t1.restore-*.log"))
    assert [each.name[11:-4] for each in logs] == [f"20261123T11000{n}Z" for n in range(4)]
    undone = ["undo: warning: Rolled back an interrupted run" in each.read_text() for each in logs]
    assert undone == [False, False, True, False]
    assert not list((little_stack.folder / "backups").glob("*.log.partial"))


def test_a_log_that_is_left_keeps_its_time(tmp_path, target):
    """Nothing was kept of it any more; a name that cannot be a time counts for nothing."""
    keep(target, "t1-99999999T999999Z")
    for name in (
        "t1.restore-20990101T000005Z.pi.log",
        "reload-influxdb-20990101T000007Z.log.partial",
    ):
        (tmp_path / name).write_text("")
    assert time_stamp(target, logs=str(tmp_path)) == "20990101T000008Z"
    assert time_stamp(target, logs=f"{tmp_path}/none") < "2099"


def test_a_change_is_told_in_words():
    """A reload from a restore of a backup that is named alike; what is no change is none."""
    line = '{"job": "pi:%s", "step": "MakeAside", "fields": {"path": "/s/restore/%s"}}'
    folder = "previous-influxdb-20261123T110000Z"
    reloaded = change_in([line % ("reloaded/influxdb-20261123T110000Z", folder)])
    restored = change_in([line % ("restored/influxdb", folder)])
    assert (reloaded.log, restored.log) == (
        "reload-influxdb-20261123T110000Z.log",
        "influxdb.restore-20261123T110000Z.log",
    )
    assert str(reloaded).startswith("the reload of InfluxDB that began at 2026-11-2")
    assert str(restored).startswith("the restore of influxdb that began at 2026-11-2")
    assert change_in([line % ("restored/x", "previous-x"), "torn"]) is None
    assert change_in([line % ("restored/x", folder), '{"done": "pi:restored/x"}']) is None
    assert "(99999999T999999Z)" in str(change_of("previous-a-99999999T999999Z"))


@pytest.mark.parametrize(("host", "flag"), [(LocalHost("/x"), ""), (object(), " --host far")])
def test_what_continues_an_undo_names_the_host(host, flag):
    """Without it the command would undo on this machine."""
    told = not_finished(SimpleNamespace(host=host, name="far"))
    assert told == f"Rollback incomplete: run `inv undo{flag}` to continue."
