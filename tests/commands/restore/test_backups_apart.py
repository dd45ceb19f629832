"""The backups lie on another file system than the stack: a USB drive, mounted or linked to."""

import os
import stat
import subprocess

import pytest
from remote_stacks import Laptop, Pi
from restores import flows, killed_amid_the_swap, restored_once

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.hosts.ssh import open_host


@pytest.fixture
def drive(tmp_path, mount_disk):
    """A file system of its own."""
    return mount_disk(tmp_path / "drive", "8m")


def put_on(drive, stack, how):
    """Let the backups of a stack lie on a drive; return what undoes a mount."""
    backups = stack.folder / "backups"
    (drive / "backups").mkdir(mode=0o700)
    if how == "link":
        backups.symlink_to(drive / "backups")
        return lambda: None
    backups.mkdir(mode=0o700)
    subprocess.run(["mount", "--bind", drive / "backups", backups], check=True)
    return lambda: subprocess.run(["umount", "--lazy", backups], check=True)


@pytest.mark.parametrize("how", ["mount", "link"])
def test_a_restore_is_committed_and_undone(little_stack, drive, how):
    """The journal lies with what it undoes, so the commit is one rename; a kill is undone too."""
    end = put_on(drive, little_stack, how)
    try:
        restored_once(little_stack)
        assert flows(little_stack) == "[1]\n"
        (kept,) = (little_stack.folder / "restore").glob("previous-t1-*/journal")
        assert not (little_stack.folder / "restore/.journal").exists()
        told = little_stack.run("undo --last-restore --yes")
        assert told.returncode == 0, told.stderr
        assert flows(little_stack) == "[2]\n"
        assert not kept.exists()
        killed_amid_the_swap(little_stack)
        assert not (drive / "backups/.journal").exists()
        assert little_stack.run("backup --runtag t2").returncode == 3
        assert flows(little_stack) == "[2]\n"
        doctor = little_stack.run("doctor").stdout
        assert "backups: on another file system than the stack" in doctor
        assert "ok    restore" in doctor
    finally:
        end()


def test_the_same_over_ssh(tmp_path, start_sshd, drive):
    """From a laptop: the journal and the commit are on the host's own disk."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    put_on(drive, pi, "link")
    laptop = Laptop(tmp_path / "laptop", pi)
    (pi.folder / "volumes/nodered/flows.json").write_text("[1]\n")
    assert laptop.run("backup --host pi --runtag t1").returncode == 0
    (pi.folder / "volumes/nodered/flows.json").write_text("[2]\n")
    told = laptop.run("restore --host pi --runtag t1 --from here --yes")
    assert told.returncode in (0, 3), told.stderr
    assert flows(pi) == "[1]\n"
    (kept,) = (pi.folder / "restore").glob("previous-t1-*/journal")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    told = laptop.run("undo --host pi --last-restore --yes")
    assert told.returncode == 0, told.stderr
    assert flows(pi) == "[2]\n"
    assert "on another file system" in laptop.run("doctor --host pi").stdout


def test_a_rename_over_ssh_never_copies(tmp_path, start_sshd, drive):
    """To another file system, or the same one that is mounted there once more, it is refused."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    host = open_host(pi.sshd.login(), str(tmp_path), "pi")
    whole, again = tmp_path / "whole", tmp_path / "again"
    whole.mkdir()
    again.mkdir()
    (whole / "a").write_text("x")
    subprocess.run(["mount", "--bind", whole, again], check=True)
    try:
        for new in (drive / "a", again / "b"):
            with pytest.raises(StepFailed, match="is on another file system than"):
                host.rename(str(whole / "a"), str(new))
            assert sorted(os.listdir(whole)) == ["a"]
            assert not new.exists()
        host.rename(str(whole / "a"), str(tmp_path / "b"))
        assert (tmp_path / "b").read_text() == "x"
    finally:
        host.close()
        subprocess.run(["umount", "--lazy", again], check=True)


def test_restore_as_a_link_is_told_before(little_stack, drive):
    """What a restore would refuse, the doctor sees."""
    (drive / "restore").mkdir()
    (little_stack.folder / "restore").symlink_to(drive / "restore")
    assert "restore is a link" in little_stack.run("doctor").stdout.replace(
        str(little_stack.folder) + "/", ""
    )
