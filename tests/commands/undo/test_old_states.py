"""What restores replaced stays as long as hosts.toml says, and goes with a run that went well."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from restores import flows, restored_once

from iotstack_invoke.commands.undo.elsewhere import note_elsewhere
from iotstack_invoke.commands.undo.old_states import OldState, find_states, judge_states, sizes_of
from iotstack_invoke.core.errors import ExitCode, Refused
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.settings.model import StackConfig, read_settings
from iotstack_invoke.stack.swap import SwapItem

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def states(*days, **more):
    """Old states of so many days, newest first."""
    return [OldState(str(n), (str(n),), NOW - timedelta(days=n), **more) for n in days]


@pytest.mark.parametrize(
    ("keep", "days", "there", "going"),
    [
        (1, 14, (20, 30), "30"),  # the newest stays, however old
        (1, 14, (1, 13, 14, 40), "14 40"),  # and all that are young
        (3, 14, (20, 30, 40, 50), "50"),
        (0, 14, (13, 20), "20"),
        (0, 0, (0, 1), "0 1"),
        (1, 14, (-3, 20), "20"),  # the clock was set back: what is ahead stays
        (1, 14, (), ""),
    ],
)
def test_whichever_keeps_more(keep, days, there, going):
    """So many, and so many days, are both kept."""
    stack = StackConfig("/s", keep_previous=keep, keep_previous_days=days)
    stay, go = judge_states(states(*there), stack, NOW)
    assert " ".join(each.name for each in go) == going
    assert len(stay) + len(go) == len(there)


def test_what_a_person_asked_for_stays_and_a_mark_counts_for_nothing():
    """`--keep-old DAYS` has its own end; a folder whose data are gone keeps no older one."""
    stack = StackConfig("/s")
    found = [
        *states(20, is_gone=True),
        *states(30),
        *states(40, until=NOW + timedelta(days=1)),
        *states(50),
    ]
    stay, go = judge_states(found, stack, NOW)
    assert [each.name for each in stay] == ["30", "40"]
    assert [each.name for each in go] == ["50"]


@pytest.mark.parametrize(
    ("key", "value"), [("keep_previous", -1), ("keep_previous_days", -1), ("keep_previous", "one")]
)
def test_what_hosts_toml_may_say(key, value):
    """Numbers from 0 on; those of the stack are those of hosts as well."""
    with pytest.raises(Exception, match=key):
        read_settings({"stack": {key: value}}, "")
    hosts = [{"name": "pi", "host": "pi"}]
    read = read_settings({"stack": {"keep_previous": 3}, "hosts": hosts}, "")
    assert read.of_machine(read.machines[0], "/x").stack.keep_previous == 3


def kept_by(stack):
    """Return the folders of a stack's old states, oldest first."""
    return sorted((stack.folder / "restore").glob("previous-t1-*Z"), key=lambda e: e.name[-16:])


def aged(folder, days):
    """Let a restore be so many days older; return its folder."""
    stamp = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ")
    journal = folder / "journal"
    journal.write_text(journal.read_text().replace(folder.name[-16:], stamp))
    return folder.rename(folder.with_name(f"previous-t1-{stamp}"))


def on_drive(drive, folder):
    """Let an old state lie on a drive as well, as its journal says; return that folder."""
    kept = drive / f".{folder.name}"
    (kept / "media").mkdir(parents=True)
    (kept / "media/film").write_text("x" * 5000)
    fields = {"host_role": "pi", "live": f"{drive}/media", "aside": f"{kept}/media"}
    fields |= {"staged": f"{drive}/.restore-media", "used": f"{kept}-undone/media"}
    line = {"job": "pi:restored/t1", "step": "SwapItem", "fields": fields}
    with (folder / "journal").open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    return kept


def restored_again(stack):
    (stack.folder / "volumes/nodered/flows.json").write_text("[3]\n")
    told = stack.run("restore --runtag t1 --from here --yes")
    assert told.returncode == 0, told.stderr
    return told


@pytest.mark.parametrize("task", ["restore --runtag t1 --from here --yes", "backup", "prune"])
def test_an_old_state_that_cannot_be_removed_is_told(little_stack, task):
    """A file in it is immutable: which folder, why, what to do; the others go, and it ends with 3."""
    restored_once(little_stack)
    restored_again(little_stack)
    restored_again(little_stack)
    oldest, older, _ = map(aged, kept_by(little_stack), (60, 50, 40))
    held = next(path for path in oldest.rglob("*") if path.name == "flows.json")
    if subprocess.run(["chattr", "+i", held], check=False, capture_output=True).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        told = little_stack.run(task)
        said = " ".join((told.stdout + told.stderr).split())
        assert told.returncode == ExitCode.WARNINGS, said
        assert f"{oldest} was not removed completely: rm: cannot remove '{held}'" in said
        assert f"sudo chattr -R -i {oldest} && sudo find {oldest} -mindepth 1 ! -path" in said
        assert "exec rm" not in said
        assert [path.name for path in older.glob("*")] in ([], ["removed"])
    finally:
        subprocess.run(["chattr", "-i", held], check=True)


def test_old_states_go_with_a_backup_that_went_well(little_stack, tmp_path):
    """On each file system, as the journal names it; the newest stays, and is the way back."""
    restored_once(little_stack)
    restored_again(little_stack)
    oldest, newest = map(aged, kept_by(little_stack), (60, 50))
    kept = on_drive(tmp_path / "drive", oldest)
    another = kept.with_name(".previous-t9-20200101T000000Z")
    another.mkdir()
    listed = little_stack.run("undo --list").stdout
    head, first, second = listed.splitlines()[:3]
    assert re.split(" {3,}", head)[-2:] == ["what becomes of it", "lies in"]
    assert "to go back to it: inv undo" in first
    assert first.endswith(f"   {newest}")
    assert "the next good backup" in second
    assert second.endswith(f"   {oldest} {kept}")
    little_stack.tool("tar", "exit 2")
    assert little_stack.run("backup --runtag t2").returncode == 1
    assert oldest.exists()
    (little_stack.tools / "tar").unlink()
    assert re.search("2 old states kept by restores take", little_stack.run("doctor").stdout)
    assert "2 old states kept by restores take" in little_stack.run("status").stdout
    told = little_stack.run("prune --dry-run")
    assert "would be removed" in told.stdout
    assert oldest.exists()
    owed = little_stack.folder / "restore/.journal"
    owed.write_text("{}\n")
    little_stack.run("prune")
    assert oldest.exists()  # what is owed may need it
    owed.unlink()
    told = little_stack.run("backup --runtag t3")
    assert told.returncode == 0, told.stderr
    assert not oldest.exists()
    assert not kept.exists()
    assert another.exists()
    assert newest.exists()
    assert little_stack.run("undo --last-restore --yes").returncode == 0
    assert flows(little_stack) == "[3]\n"


def test_a_restore_lets_the_older_ones_go(little_stack):
    """Its own is the newest; what is young stays whatever their number."""
    restored_once(little_stack)
    oldest = aged(*kept_by(little_stack), 15)
    told = restored_again(little_stack)
    assert (
        "removed, because [stack] keep_previous no longer keeps it: before the restore of t1"
        in told.stdout
    )
    assert not oldest.exists()
    restored_again(little_stack)
    assert len([*(little_stack.folder / "restore").glob("previous-t1-*/journal")]) == 2


def test_a_size_that_cannot_be_told_is_no_small_one(tmp_path):
    """What du(1) could not read is not left out of the sum; a folder that is not there is nothing."""
    host, folder = LocalHost(str(tmp_path)), tmp_path / "previous-x"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 5000)
    state = OldState("x", (str(folder), f"{tmp_path}/gone"), NOW)
    whole = sizes_of(host, [state])["x"]
    assert (whole.size_bytes > 5000, str(whole)[:1].isdigit()) == (True, True)
    refusing = tmp_path / "sudo"
    refusing.write_text(
        '#!/bin/sh\n"$@"; echo "du: cannot read directory: Input/output error" >&2; exit 1\n'
    )
    refusing.chmod(0o755)
    assert str(sizes_of(host, [state], (str(refusing),))["x"]).startswith("more than ")


def test_a_restore_without_room_tells_what_old_states_take(little_stack):
    """And which command lists them."""
    restored_once(little_stack)
    little_stack.environment["PYTHONPATH"] = str(little_stack.tools)
    (little_stack.tools / "sitecustomize.py").write_text(
        "import iotstack_invoke.hosts.local as hosts\nhosts.LocalHost.free_bytes = lambda *_: 1\n"
    )
    told = little_stack.run("restore --runtag t1 --from here --yes")
    assert told.returncode == 13
    assert "1 old state kept by restores takes" in " ".join(told.stderr.split())
    assert "To list it: inv undo --list" in " ".join(told.stderr.split())


def test_a_reload_is_not_called_a_restore(tmp_path):
    """By the job in its journal, for a backup may be named alike; by its name once it is undone."""
    host, stack = LocalHost(str(tmp_path)), tmp_path / "IOTstack"
    (stack / "volumes").mkdir(parents=True)
    for day, job in ((1, "reloaded/influxdb-20200101T000000Z"), (2, "restored/influxdb")):
        folder = stack / f"restore/previous-influxdb-2020010{day}T000000Z"
        folder.mkdir(parents=True)
        step = {"job": f"pi:{job}", "step": "MakeAside", "fields": {"path": str(folder)}}
        (folder / "journal").write_text(json.dumps(step))
    (stack / "restore/previous-influxdb-20200103T000000Z-undone").mkdir()
    assert [each.title.partition(" that began")[0] for each in find_states(host, str(stack))] == [
        "what was live until the reload of InfluxDB",
        "before the restore of influxdb",
        "before the reload of InfluxDB",
    ]


def test_old_states_are_listed_without_docker(little_stack):
    """They lie on the disk; that nobody can tell whether an undo would go well is told."""
    restored_once(little_stack)
    (state,) = kept_by(little_stack)
    listed = little_stack.run("undo --list")
    assert listed.stderr == ""
    little_stack.tool("docker", "echo 'Is the docker daemon running?' >&2; exit 1")
    told = little_stack.run("undo --list")
    assert (told.returncode, told.stdout) == (0, listed.stdout)
    assert told.stdout.splitlines()[1].endswith(f"   {state}")
    words = " ".join(told.stderr.split())
    assert "Docker on this machine cannot be used: Is the docker daemon running?" in words
    assert "This list is from the disk. inv undo needs Docker, so it may not work." in words
    assert "inv doctor." in words


def test_what_is_listed_is_what_an_undo_does(little_stack):
    """What is half undone is not told as undone; nothing goes back past what was removed."""
    restored_once(little_stack)
    restored_again(little_stack)
    older, newest = kept_by(little_stack)
    died = newest.rename(newest.with_name("previous-t1-20991123T110000Z"))
    text = (died / "journal").read_text().replace(newest.name, died.name)
    (died / "journal").rename(died.parent / ".journal")
    (died.parent / ".journal").write_text(text)
    (died.parent / f"{died.name}-undone").mkdir()
    _, undone, owed, other, _ = little_stack.run("undo --list").stdout.splitlines()
    assert "the restore of t1 is running or was interrupted: inv undo undoes it; stays" in owed
    assert "after the restore of t1, being undone" in undone
    assert "to continue: inv undo; stays" in undone
    assert "to go back to it: inv undo --last-restore, after the other is undone" in other
    (died.parent / ".journal").rename(died / "journal")
    (died / "removed").write_text("")
    (died / "journal").unlink()
    (line,) = (e for e in little_stack.run("undo --list").stdout.splitlines() if "before" in e)
    assert line.endswith(f" {older}")
    assert "inv undo" not in line
    told = little_stack.run("undo --last-restore --yes")
    assert ", but cannot be put back without it." in told.stderr


def test_what_an_undo_put_aside_is_an_old_state_too(tmp_path):
    """Also on another file system, which no journal names any more; its age is that of the undo."""
    host, stack = LocalHost(str(tmp_path)), tmp_path / "IOTstack"
    name = "previous-t1-20200101T000000Z-undone"
    folder, used = stack / "restore" / name, tmp_path / f"drive/.{name}"
    for each in (stack / "restore", stack / "volumes", used):
        each.mkdir(parents=True)
    gone = tmp_path / f"gone/.{name}"
    steps = [
        SwapItem(HostAccess("pi"), "x", "x", "x", f"{at}/m")
        for at in (used, gone, f"{tmp_path}/.previous-t1", stack / "restore" / name)
    ]
    assert list(note_elsewhere(host, str(stack), lambda: (), steps)) == []
    (state,) = find_states(host, str(stack))
    assert state.folders == (str(folder), str(used))
    assert state.is_undone
    assert datetime.now(UTC) - state.since < timedelta(days=1)
    assert not state.can_be_undone
    began = stack / "restore" / name.removesuffix("-undone")
    began.mkdir()
    (began / "journal").write_text("x")
    (found,) = find_states(host, str(stack))  # that undo died before its first step
    assert found.name == began.name.removeprefix("previous-")
    (began / "journal").unlink()
    hostile = {"with": ["/etc", f"/a/../.{name}"]}
    (folder / "elsewhere.json").write_text(json.dumps(hostile))
    assert find_states(host, str(stack))[0].folders == (str(folder),)
    folder.chmod(0o777)
    with pytest.raises(Refused, match="is not trusted"):
        find_states(host, str(stack))


def test_what_a_failed_restore_left_on_a_drive_is_an_old_state_too(little_stack, small_disk):
    """No journal names it any more once it is undone; it is listed, and goes as any other."""
    with little_stack.settings.open("a") as stream:
        stream.write("keep_previous = 0\nkeep_previous_days = 0\n")
        stream.write(f'[[stack.include]]\npath = "{small_disk}"\n')
    (small_disk / "film").write_text("old")
    told = little_stack.run("backup --runtag t1")
    assert told.returncode == 0, told.stderr
    (small_disk / "film").write_text("new")
    fails = f'[ "$*" != "--file-system {small_disk}" ] || {{ rm "$0"; exit 1; }}'
    little_stack.tool("sync", f'{fails}; exec /bin/sync "$@"')
    told = little_stack.run("restore --runtag t1 --from here --yes")
    assert "The stack is in its previous state." in " ".join(told.stderr.split()), told.stderr
    assert (small_disk / "film").read_text() == "new"
    (used,) = small_disk.glob(".previous-t1-*-undone")
    assert (used / "film").read_text() == "old"
    listed = little_stack.run("undo --list").stdout
    assert "after the restore of t1, now undone" in listed
    assert f" {used}" in listed.replace("\n", "")
    told = little_stack.run("backup --runtag t2")
    assert told.returncode == 0, told.stderr
    assert [*small_disk.iterdir()] == [small_disk / "film"]
    assert [*(little_stack.folder / "restore").glob("previous-*")] == []


def test_a_backup_that_is_called_like_an_old_state_is_not_staged_over_it(little_stack):
    """What is staged lies in a folder of that name, and that is cleared first."""
    restored_once(little_stack)
    (kept,) = (little_stack.folder / "restore").glob("previous-t1-*")
    assert little_stack.run(f"backup --runtag {kept.name}").returncode == 0
    told = little_stack.run(f"restore --runtag {kept.name} --from here --yes")
    assert told.returncode == ExitCode.REFUSED
    assert "has the same name as data kept by an earlier restore" in told.stderr
    assert little_stack.run("undo --last-restore --yes").returncode == 0
    assert flows(little_stack) == "[2]\n"
