"""What cannot be looked at is not taken for what is not there: here, and on another machine."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from contexts import not_root, put_set
from sample_sets import Shelf

from iotstack_invoke.commands.backup.not_running import holds_files
from iotstack_invoke.commands.catalog.copies import find_copy
from iotstack_invoke.commands.restore.request import Source, choose_set
from iotstack_invoke.commands.undo.undo import _last_journal, journal_of, what_is_left
from iotstack_invoke.core.errors import StepFailed, Unreachable
from iotstack_invoke.environment.environment import Environment, newest_good, sets_read
from iotstack_invoke.environment.stack_host import StackHost
from iotstack_invoke.hosts.inspect import (
    device,
    entries,
    first_match,
    has_line,
    is_folder,
    may_be_there,
    mount_of,
    read_text,
    which_may_be_there,
)
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.hosts.ssh_connection import Login

NEW, OLD = "2026-11-23_1100", "2026-11-22_1100"
UNREADABLE = "/proc/self/mem"
"""A regular file whose first byte the kernel gives nobody: Input/output error, for root as well."""
CUTS = """case "$*" in *{what}*) pid=$$
while [ "$(cat /proc/$pid/comm)" != sshd ]; do read -r _ _ _ pid _ < /proc/$pid/stat; done
kill -9 $pid; sleep 5;; esac
exec /usr/bin/{name} "$@"
"""


@pytest.fixture(params=["here", "far"])
def host(request, tmp_path):
    """A machine with a folder: this one, and one behind an sshd."""
    folder = tmp_path / "stack"
    folder.mkdir()
    (folder / "loop").symlink_to("loop")  # whatever lies behind it, nobody can tell
    if request.param == "here":
        yield LocalHost(str(folder))
        return
    login = Login(request.getfixturevalue("sshd").login(), "pi")
    yield SshHost(login, str(folder))
    login.close()


def tool(folder, name, script):
    """Put a shell script before the program of that name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_what_cannot_be_looked_at_is_told(host):
    """A path that leads in a circle is not one at which nothing is."""
    root = host.root
    behind = f"{root}/loop/x"
    for act in (
        lambda: host.stat([f"{root}/none", behind]),
        lambda: host.listdir(behind),
        lambda: host.read_many(f"{root}/loop", ["x"]),
        lambda: host.lines(behind),
        lambda: entries(host, behind),
        lambda: read_text(host, behind),
        lambda: is_folder(host, behind),
        lambda: device(host, behind),
        lambda: has_line(host, "x", behind, (), 60),
    ):
        with pytest.raises(StepFailed, match=r"[Tt]oo many levels of symbolic links"):
            act()
    paths = [f"{root}/none", behind, root, f"{root}/none/x"]
    assert which_may_be_there(host, paths) == {behind, root}
    assert may_be_there(host, behind)
    assert holds_files(host, [behind], ())


def test_a_bound_folder_is_a_mount_of_its_own(host, tmp_path):
    """It shows the file system around it, with the same device, and no rename leaves it."""
    bound, beside = tmp_path / "with blanks" / "bound", tmp_path / "beside"
    for each in (bound, beside):
        each.mkdir(parents=True)
    (tmp_path / "link").symlink_to(bound)
    if subprocess.run(["mount", "--bind", bound, bound], check=False).returncode:
        pytest.skip("only root can mount a folder")
    try:
        within = [f"{bound}", f"{bound}/none/x", f"{tmp_path}/link", f"{tmp_path}/link/none"]
        assert len({device(host, each) for each in (*within, str(beside))}) == 1
        assert len({mount_of(host, each) for each in within}) == 1
        around = (str(beside), str(bound.parent), f"{beside}/none", str(tmp_path))
        assert {mount_of(host, each) for each in around} == {mount_of(host, str(tmp_path))}
        assert mount_of(host, str(bound)) != mount_of(host, str(beside))
    finally:
        subprocess.run(["umount", "--lazy", bound], check=True)


def test_what_is_not_there_is_no_failure(host):
    """A missing file, one of a missing folder, and what seems to lie in a file."""
    root = host.root
    with open(f"{root}/file: No such file or directory", "w") as stream:
        stream.write("x\n")
    file = f"{root}/file: No such file or directory"
    for path in (f"{root}/none", f"{root}/none/x", f"{file}/x"):
        assert host.stat([path]) == {}
        assert host.read_many(*os.path.split(path)[:1], [os.path.basename(path)]) == {}
        assert host.lines(path) == []
        assert entries(host, path) == {}
        assert read_text(host, path) == ""
        assert not is_folder(host, path)
        assert not may_be_there(host, path)
        assert has_line(host, "x", path, (), 60) is None
        assert device(host, path) == device(host, root)
        assert not holds_files(host, [path], ())
    assert host.listdir(f"{root}/none") == {}
    assert set(host.listdir(root)) == {"loop", os.path.basename(file)}
    assert (has_line(host, "x", file, (), 60), has_line(host, "y", file, (), 60)) == (True, False)
    assert (first_match(host, "x*", file, (), 60), first_match(host, "y", file, (), 60)) == (
        "x",
        "",
    )
    assert (is_folder(host, root), is_folder(host, file)) == (True, False)


def test_a_file_whose_bytes_do_not_come_is_not_missing(host):
    """A medium that fails is told with the file's name, and no empty text comes of it."""
    root = host.root
    os.symlink(UNREADABLE, f"{root}/bad")
    for act in (
        lambda: host.read_many(root, ["none", "bad"]),
        lambda: host.lines(f"{root}/bad"),
        lambda: read_text(host, f"{root}/bad"),
    ):
        with pytest.raises(StepFailed, match=r"bad.*Input/output error"):
            act()


def test_a_listing_that_breaks_off_is_no_listing(start_sshd, tmp_path):
    """A disk that fails amid a folder makes it no shorter; a file that goes meanwhile is no failure."""
    tools, folder = tmp_path / "tools", tmp_path / "stack"
    folder.mkdir()
    (folder / "a").touch()
    login = Login(start_sshd("failing", path=f"{tools}:/usr/bin:/bin").login(), "pi")
    host = SshHost(login, str(folder))
    said = "find: '%s': %s"
    for why, is_failure in (("No such file or directory", False), ("Input/output error", True)):
        told = said % (f"{folder}/b", why)
        tool(tools, "find", f'/usr/bin/find "$@"; echo "{told}" >&2; exit 1')
        for look in (lambda: host.listdir(str(folder)), lambda: entries(host, str(folder))):
            if is_failure:
                with pytest.raises(StepFailed, match=why):
                    look()
            else:
                assert set(look()) == {"a"}
    target = StackHost(host, "pi", str(folder), "test", (), ("docker",))
    with pytest.raises(StepFailed, match="Input/output error"):
        _last_journal(target)
    login.close()


def test_a_line_that_breaks_owes_what_it_owed(start_sshd, tmp_path):
    """Nobody says that all is undone where the journal cannot be read."""
    tools, folder = tmp_path / "tools", tmp_path / "stack"
    (folder / "restore").mkdir(parents=True)
    (folder / "restore/.journal").write_text("{}\n")
    tool(tools, "cat", CUTS.format(what=".journal", name="cat"))
    login = Login(start_sshd("cutting", path=f"{tools}:/usr/bin:/bin").login(), "pi")
    target = StackHost(SshHost(login, str(folder)), "pi", str(folder), "test", (), ("docker",))
    with pytest.raises(Unreachable):
        read_text(target.host, target.journal)
    journal = journal_of(Shelf(tmp_path / "shelf").settings(), target)
    assert "Cannot tell whether everything is undone" in what_is_left(
        target, journal, "It is as it was."
    )
    login.close()


@pytest.mark.parametrize("size", ["few", "many"])
def test_a_line_that_breaks_amid_a_manifest_makes_no_older_set_the_latest(
    start_sshd, tmp_path, monkeypatch, size
):
    """Restore, verify and rehearse are told that the vault is unreachable, whichever way it is read."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    tools = tmp_path / "tools"
    for name in ("head", "cat"):
        tool(tools, name, CUTS.format(what=f"{NEW}.manifest", name=name))
    sshd = start_sshd("cutting", path=f"{tools}:/usr/bin:/bin")
    shelf = Shelf(tmp_path)
    nas = shelf.vault("nas", sshd.login())
    shelf.put(OLD, nas, when="2026-11-22T10:00:00Z")
    for number in range(10 if size == "many" else 0):
        shelf.put(f"2026-11-01_11{number:02}", nas, when=f"2026-11-01T10:{number:02}:00Z")
    shelf.put(NEW, nas)
    environment = Environment.of(shelf.settings())
    source = Source(environment.vaults["nas"], str(nas), in_place=False, name="nas")
    for act in (
        lambda: choose_set(source, "latest"),
        lambda: find_copy(environment, "latest", "nas", {}, print),
        lambda: sets_read(source.storage, str(nas), 30),
        lambda: newest_good(source.storage, str(nas), datetime.now(UTC)),
    ):
        with pytest.raises(Unreachable):
            act()
    for name in ("head", "cat"):
        (tools / name).unlink()
    assert choose_set(source, "latest").backup.runtag == NEW
    environment.close()


def test_a_manifest_that_cannot_be_read_is_no_reason_to_take_an_older_one(shelf):
    """The error names the file and the way out; the others are listed, and that one as damaged."""
    path = shelf.backups / f"{NEW}.manifest.json"
    date = path.stat().st_mtime
    path.write_text("x")
    os.utime(path, (date, date))
    path.chmod(0)
    script = (
        "import sys; from datetime import UTC, datetime; "
        "from iotstack_invoke.commands.shared.latest import latest_in; "
        "from iotstack_invoke.hosts.local import LocalHost; "
        "from iotstack_invoke.environment.environment import sets_read; "
        "host = LocalHost(sys.argv[1]); sets = sets_read(host, sys.argv[1], 30); "
        "print({each.runtag: each.state.value for each in sets}); "
        "latest_in(sets, host, sys.argv[1], {}, 'here')"
    )
    words = (*not_root(shelf.backups), sys.executable, "-c", script, str(shelf.backups))
    for each in shelf.backups.iterdir():
        if each != path:
            each.chmod(0o644)
    shelf.backups.chmod(0o755)
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    assert told.stdout == f"{{{NEW!r}: 'damaged', {OLD!r}: 'complete'}}\n", told.stderr
    last = told.stderr.strip().splitlines()[-1]
    assert "Cannot tell which backup in " in last
    assert " is the latest: " in last
    assert f"{NEW}.manifest.json cannot be read: Permission denied" in last
    assert "--runtag NAME" in last


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two sets here, the newer one first in the listing by its date."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shelf = Shelf(tmp_path)
    shelf.put(OLD, when="2026-11-22T10:00:00Z")
    shelf.put(NEW)
    return shelf


def test_a_newer_backup_beside_the_stack_is_told(little_stack, tmp_path):
    """The vault is the default source: that it is the older one is said, with the way to the newer."""
    nas, backups = tmp_path / "nas", little_stack.folder / "backups"
    for each in (nas, backups):
        each.mkdir()
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{nas}"\n')
    now = datetime.now(UTC)
    put_set(nas, now - timedelta(days=2), runtag="older")
    newer = put_set(backups, now - timedelta(days=1), runtag="newer")
    line = "restore --runtag latest --dry-run"
    told = little_stack.run(line)
    said = " ".join((told.stdout + told.stderr).split())
    assert "A NEWER BACKUP exists on this machine itself: newer" in said
    assert "--from here" in said
    for quiet in (f"{line} --from nas", line.replace("latest", "older"), f"{line} --from here"):
        told = little_stack.run(quiet)
        assert "NEWER" not in told.stdout + told.stderr, quiet
    newer.chmod(0)
    newer.write_text("{}")  # damaged: it is no good set
    told = little_stack.run(line)
    assert "A NEWER" not in told.stdout + told.stderr
    said = " ".join(told.stderr.split())
    assert "PASSED OVER: newer in this machine:backups, which is newer, is damaged" in said


class Counted(dict):
    """A listing that counts how often somebody goes through all of it."""

    def __init__(self, names):
        super().__init__(names)
        self.times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()

    def items(self):
        self.times += 1
        return super().items()


def test_a_listing_is_not_gone_through_for_each_of_its_sets(tmp_path):
    """Twenty thousand archives without manifests are as many steps, not as many squared."""

    class Listed(LocalHost):
        def listdir(self, folder):
            self.listed = Counted(super().listdir(folder))
            return self.listed

    def times(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        for day in range(1, number + 1):
            put_set(
                folder, datetime(2026, 11, day, 10, tzinfo=UTC), runtag=f"2026-11-{day:02}_1100"
            )
            (folder / f"2026-12-{day:02}_1100.general-backup.tar.gz").touch()
        storage = Listed(str(folder))
        newest = newest_good(storage, str(folder), datetime(2027, 1, 1, tzinfo=UTC))
        assert newest.good.runtag == f"2026-11-{number:02}_1100"
        assert len(newest.newer) == number
        return storage.listed.times

    assert times(2) == times(20)
