"""Records, checks and marks are believed only where nobody else could have written them."""

import json
import os
import subprocess

import pytest
from contexts import PlainContext
from remote_stacks import Laptop, Pi

from iotstack_invoke.backups.manifest import RECORDS_ENDING
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts import trust
from iotstack_invoke.hosts.local import LocalHost, locked
from iotstack_invoke.hosts.trust import believed, warn_with
from iotstack_invoke.stack.quiesce import stopped

NOBODY = 65534
DAMAGED = {
    "runtag": "t1",
    "at": "here",
    "utc": "2026-11-23T10:00:00Z",
    "how": "read",
    "good": False,
    "problems": ["cut"],
    "program": "x",
    "made": "",
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def theirs(path, text=""):
    path.write_text(text)
    os.chown(path, NOBODY, NOBODY)


@pytest.fixture
def warned():
    told = []
    warn_with(told.append)
    yield told
    warn_with(lambda _text: None)


def test_each_way_in_which_a_file_may_be_another_users(tmp_path, warned):
    """Theirs, open to all, or a link; the warning names the file and what to do, once."""
    host, path, link = LocalHost(str(tmp_path)), tmp_path / "b/file", tmp_path / "b/link"
    path.parent.mkdir()
    path.write_text("")
    path.chmod(0o644)
    assert believed(host, str(path))
    assert believed(host, str(path.with_name("none")))
    assert not warned
    path.chmod(0o666)
    assert not believed(host, str(path))
    assert "everyone can write to it (" in warned[0]
    theirs(path)
    link.symlink_to(path)
    assert not believed(host, str(link))
    assert "it is a symbolic link" in warned[1]
    warn_with(warned.append)
    path.chmod(0o600)
    assert not believed(host, str(path))
    assert not believed(host, str(path))
    assert len(warned) == 3
    assert f"{path} is ignored" in warned[2]
    assert f"it belongs to user {NOBODY}" in warned[2]
    assert f"sudo chown 0 {path} && sudo chmod go-w {path}" in warned[2]


def test_a_file_system_without_owners_is_believed(tmp_path, monkeypatch):
    """All of it has one user and one mode; the user must be us."""
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(0o777)
    host = LocalHost(str(tmp_path))
    assert not believed(host, str(path))
    kind = subprocess.check_output(["stat", "-f", "-c", "%T", path], text=True).strip()
    monkeypatch.setattr(trust, "WITHOUT_OWNERS", {kind})
    assert believed(host, str(path))
    os.chown(path, NOBODY, NOBODY)
    assert not believed(host, str(path))


def test_a_run_goes_on_without_what_others_wrote(little_stack):
    """A check, what is gone, and records of another user count for nothing, and are named."""
    assert little_stack.run("backup --runtag t1").returncode == 0
    backups = little_stack.folder / "backups"
    checks, said = backups / ".checks.jsonl", backups / ".retention.jsonl"
    records = backups / f"t2.{RECORDS_ENDING}"
    made = json.loads((backups / "t1.manifest.json").read_text())["finished_utc"]
    bad = json.dumps({**DAMAGED, "made": made}) + "\n"
    checks.write_text(bad)
    listed = little_stack.run("list")
    assert (listed.returncode, "damaged" in listed.stdout) == (3, True)
    for each in (checks, said):
        theirs(each, bad)
    listed = little_stack.run("list")
    assert listed.returncode == 0, listed.stderr
    assert "damaged" not in listed.stdout
    assert " ".join(listed.stderr.split()).count(f"{checks} is ignored") == 1
    theirs(records, json.dumps({"started_utc": "x", "claim": "theirs"}) + "\n")
    made = little_stack.run("backup --runtag t2")
    words = " ".join(made.stderr.split())
    assert made.returncode == 0, made.stderr
    for each in (checks, said, records):
        assert f"{each} is ignored" in words
    assert not records.exists()
    assert "theirs" not in (backups / "t2.manifest.json").read_text()


def test_a_mark_of_another_user_is_made_ours(tmp_path, warned):
    """Whoever owns it could hold it, as a lock, for ever."""
    (tmp_path / ".lock").write_text("")
    tool = tmp_path / "docker"
    tool.write_text("#!/bin/sh\n[ $1 != inspect ] || printf 'true false\\nrunning\\n'\n")
    tool.chmod(0o755)
    quiet = stopped(HostAccess("pi", docker=(str(tool),)), "x", str(tmp_path))
    mark = tmp_path / ".quiet-x"
    theirs(mark, "theirs\n")
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    with locked(f"{tmp_path}/.lock", "a test"):
        quiet.do(context)
        assert mark.stat().st_uid == 0
        assert "theirs" not in mark.read_text()
        quiet.undo(context.host("pi"))
    assert f"{mark} is ignored" in warned[0]
    assert not mark.exists()


def test_over_ssh_as_well(tmp_path, start_sshd):
    """What another user of the host wrote there is ignored, with the host's name."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    laptop = Laptop(tmp_path / "laptop", pi)
    assert laptop.run("backup --host pi --runtag t1").returncode == 0
    checks = pi.backups / ".checks.jsonl"
    theirs(checks, json.dumps(DAMAGED) + "\n")
    told = laptop.run("backup --host pi --runtag t2")
    assert told.returncode == 0, told.stderr
    assert f"On pi: {checks} is ignored" in " ".join(told.stderr.split())
