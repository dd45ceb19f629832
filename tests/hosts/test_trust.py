"""What is read back of a host is believed only where nobody else could have written it."""

import dataclasses
import json
import os
import re
import stat

import pytest
from contexts import not_root
from remote_stacks import Laptop, Pi
from restores import flows, killed_amid_the_swap, restored_once

from iotstack_invoke.core.errors import Refused
from iotstack_invoke.engine.journal import name_of
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.trust import Owned, Trust, is_private
from iotstack_invoke.workflows.restore import undoable

PEOPLE = "root:x:0:0::/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n"
BOB = "bob:x:1001:1001::/home/bob:/bin/sh\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


@pytest.mark.parametrize(
    ("group", "people", "private"),
    [
        ("pi:x:1000:\n\n", PEOPLE, True),
        ("pi:x:1000:pi,root\n\n", PEOPLE, True),
        ("iot:x:1000:pi\n\n", PEOPLE, True),
        ("\n", PEOPLE, True),  # a group that the system does not know
        ("pi:x:1000:bob\n\n", PEOPLE + BOB, False),
        ("pi:x:1000:pi,gone\n\n", PEOPLE, False),
        ("pi:x:1000:pi\nbob:x:1001:bob\n\n", PEOPLE, True),  # all, where there is no getent(1)
        ("users:x:1000:\n\n", PEOPLE + BOB.replace("1001:1001", "1001:1000"), False),
    ],
)
def test_a_group_of_one_is_nobody_else(group, people, private):
    """With the umask 002 of many systems a user's own group may write: it is the user."""
    assert is_private(group + people, 1000, {1000, 0}) is private


def test_a_group_of_which_nothing_is_told_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    """Whoever is in it may write; getent(1) fails for more than a group that is unknown."""
    path = tmp_path / "journal"
    path.write_text("")
    path.chmod(0o664)
    (tmp_path / "getent").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "getent").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    trust, found = owned(path)
    assert trust.others(found).startswith(f"others in group {path.stat().st_gid} can write to it")


def owned(path, trust=None):
    trust = trust or Trust(LocalHost("/"), os.path.dirname(path))
    return trust, trust.stat([str(path)])[str(path)]


def test_what_others_may_write_is_told(tmp_path):
    """Each way in which another could write it, in words; a plain file of ours is ours."""
    path = tmp_path / "journal"
    path.write_text("")
    path.chmod(0o644)
    trust, found = owned(path)
    assert trust.others(found) == ""
    path.chmod(0o666)
    trust, found = owned(path)
    assert trust.others(found).startswith("everyone can write to it (-rw-rw-rw-")
    with pytest.raises(Refused, match="is not trusted: everyone can write to it"):
        trust.refuse(found)
    link = tmp_path / "link"
    link.symlink_to(path)
    path.chmod(0o600)
    trust, found = owned(link)
    with pytest.raises(Refused, match="it is not a plain file"):
        trust.refuse(found)
    assert not owned(tmp_path / "none")[1].is_there


@as_root
def test_root_believes_what_the_owner_of_the_stack_wrote_and_no_other(tmp_path):
    """Root acts in that folder anyway; a third user's file is refused."""
    path = tmp_path / "journal"
    path.write_text("")
    os.chown(path, 1000, 1000)
    trust, found = owned(path)
    assert trust.others(found) == "it belongs to user 1000"
    os.chown(tmp_path, 1000, 1000)
    trust, found = owned(path)
    assert trust.others(found) == ""
    os.chown(path, 1001, 1001)
    trust, found = owned(path)
    assert trust.others(found) == "it belongs to user 1001"


def test_what_may_not_be_looked_into_is_not_taken_for_empty(tmp_path):
    """A folder of root's, without sudo, may hold a journal."""
    (tmp_path / "restore").mkdir(mode=0o700)
    (tmp_path / "open").mkdir()
    words = not_root(tmp_path / "open")
    if not words:
        pytest.skip("only root can be somebody else")
    (tmp_path / "restore").chmod(0o700)
    trust = Trust(LocalHost("/"), str(tmp_path), words)
    trust.me = 65534
    path = str(tmp_path / "restore/.journal")
    found = trust.stat([path, str(tmp_path / "open/.journal")])
    assert found[path].is_hidden
    assert not found[str(tmp_path / "open/.journal")].is_there
    with pytest.raises(Refused, match="its folder cannot be read"):
        trust.refuse(found[path])
    with pytest.raises(Refused, match="cannot be read, so it is unknown what"):
        trust.make_private(Owned(path, "?"), or_refuse=True)


def test_a_folder_of_ours_is_made_private(tmp_path):
    """Others lose their right to write; what its owner's own group may do stays."""
    folder = tmp_path / "backups"
    folder.mkdir()
    folder.chmod(0o2777)
    trust, found = owned(f"{folder}/.")
    told = trust.make_private(found, or_refuse=True)
    assert told.endswith(". Changed: now only its owner can.")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2775
    trust, found = owned(f"{folder}/.")
    assert trust.make_private(found, or_refuse=True) == ""


# A run that meets them.

RAN = '{{"job": "pi:restored/x", "step": "StopContainers", "fields": {{"host_role": "pi", '
RAN += '"names": ["x"], "docker": ["touch", "{}"], "guard": "{}/.commands"}}}}\n'


@pytest.mark.parametrize("line", ["backup --runtag t2", "undo --yes", "restore --runtag t1 --yes"])
def test_a_journal_in_a_folder_of_everybody_is_not_believed(little_stack, line):
    """Whoever may write the folder could have anything undone: refused, and nothing is done."""
    restored_once(little_stack)
    backups = little_stack.folder / "backups"
    owned = backups / ".journal"
    owned.write_text(RAN.format(backups / "ran", backups))
    owned.chmod(0o600)
    backups.chmod(0o777)
    told = little_stack.run(line)
    assert told.returncode == 13, told.stderr
    words = " ".join(told.stderr.split())
    assert f"{owned} is not trusted: {backups}: everyone can write to it" in words
    assert not (backups / "ran").exists()
    assert owned.exists()
    doctor = little_stack.run("doctor").stdout
    assert re.search(r"(?m)^FAIL +journal: .* is not trusted", doctor), doctor
    assert re.search(r"(?m)^WARN +backups: .* everyone can write to", doctor), doctor


def test_a_kept_journal_that_others_may_have_written_is_not_gone_back_by(little_stack):
    """Of a restore that went well: who may write it could have anything undone."""
    restored_once(little_stack)
    (kept,) = (little_stack.folder / "restore").glob("previous-t1-*/journal")
    kept.chmod(0o666)
    told = little_stack.run("undo --last-restore --yes")
    assert told.returncode == 13, told.stderr
    assert f"{kept} is not trusted: everyone can write to it" in " ".join(told.stderr.split())
    assert flows(little_stack) == "[1]\n"


@as_root
def test_a_journal_of_another_user_is_not_believed(little_stack):
    """Also in a folder that nobody else may write any more."""
    restored_once(little_stack)
    path = little_stack.folder / "restore/.journal"
    path.write_text(RAN.format(path.parent / "ran", path.parent))
    os.chown(path, 1001, 1001)
    told = little_stack.run("backup --runtag t2")
    assert told.returncode == 13
    assert "it belongs to user 1001" in told.stderr
    assert not (path.parent / "ran").exists()


def test_words_of_a_journal_are_the_targets_own(little_stack):
    """A journal that is ours and names another program for Docker has Docker asked."""
    restored_once(little_stack)
    backups = little_stack.folder / "backups"
    (backups / ".journal").write_text(RAN.format(backups / "ran", backups))
    little_stack.tool(
        "docker", f'echo "$*" >> {backups.parent}/asked; case $1 in ps) ;; *) echo /x ;; esac'
    )
    told = little_stack.run("undo --yes")
    assert told.returncode == 0, told.stderr
    assert not (backups / "ran").exists()
    asked = (backups.parent / "asked").read_text()
    assert "stop --time 60 x\nstart x\n" in asked


def test_a_folder_of_everybody_without_a_journal_is_made_private(little_stack):
    """The backup goes on, and says so; its locks are nobody else's to hold."""
    assert little_stack.run("backup --runtag t1").returncode == 0
    backups = little_stack.folder / "backups"
    backups.chmod(0o777)
    (backups / ".commands").chmod(0o644)
    (backups / ".lock").chmod(0o644)
    told = little_stack.run("backup --runtag t2")
    assert told.returncode == 0, told.stderr
    assert "everyone can write to it (" in told.stderr
    assert stat.S_IMODE(backups.stat().st_mode) & 0o002 == 0
    assert {stat.S_IMODE((backups / e).stat().st_mode) for e in (".commands", ".lock")} == {0o600}
    assert "everyone" not in little_stack.run("backup --runtag t3").stderr


@as_root
def test_a_lock_of_another_user_is_refused(little_stack):
    """They could hold it for ever, and every run would wait."""
    assert little_stack.run("backup --runtag t1").returncode == 0
    path = little_stack.folder / "backups/.commands"
    os.chown(path, 1001, 1001)
    told = little_stack.run("backup --runtag t2")
    assert told.returncode == 13
    assert f"{path} is not a lock of this program: it belongs to user 1001" in " ".join(
        told.stderr.split()
    )


def test_an_old_journal_beside_the_backups_is_undone(little_stack):
    """As earlier versions left it there, with the words of its commands, after a kill."""
    restored_once(little_stack)
    killed_amid_the_swap(little_stack)
    new, old = (little_stack.folder / each / ".journal" for each in ("restore", "backups"))
    guard = str(little_stack.folder / "backups/.commands")
    words = {"as_root": [], "docker": ["no-such-docker"], "guard": guard}
    lines = [json.loads(line) for line in new.read_text().splitlines()]
    for each in lines:
        kind = next(k for k in undoable() if name_of(k) == each["step"])
        had = {field.name for field in dataclasses.fields(kind)} & {*words}
        each["fields"] |= {name: words[name] for name in had}
    old.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    new.unlink()
    told = little_stack.run("undo --yes")
    assert told.returncode == 0, told.stderr
    assert "Rolled back an interrupted run on this machine: the restore of t1" in told.stderr
    assert flows(little_stack) == "[1]\n"
    assert not old.exists()


def test_over_ssh_as_well(tmp_path, start_sshd):
    """A host's journal is believed by the same rules, and its locks and folders are closed."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    laptop = Laptop(tmp_path / "laptop", pi)
    assert laptop.run("backup --host pi --runtag t1").returncode == 0
    assert stat.S_IMODE((pi.backups / ".commands").stat().st_mode) == 0o600
    assert stat.S_IMODE((pi.backups / ".lock").stat().st_mode) == 0o600
    pi.backups.chmod(0o777)
    (pi.backups / ".journal").write_text(RAN.format(pi.backups / "ran", pi.backups))
    for line in ("backup --host pi --runtag t2", "undo --host pi --yes"):
        told = laptop.run(line)
        assert told.returncode == 13, told.stderr
        assert "everyone can write to it (" in told.stderr
    (pi.backups / ".journal").unlink()
    assert laptop.run("backup --host pi --runtag t2").returncode == 0
    assert stat.S_IMODE(pi.backups.stat().st_mode) & 0o002 == 0
