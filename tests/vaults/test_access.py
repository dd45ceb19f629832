"""Vaults: opened when they are first used, tried anew after a failure, never made by us."""

import contextlib
import errno
import io
import os
import subprocess
import threading
from dataclasses import replace

import pytest

from iotstack_invoke.commands.doctor.doctor import unreached
from iotstack_invoke.commands.undo.crash_recovery import recover_here
from iotstack_invoke.core.errors import StepFailed, Unreachable
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.environment.environment import Environment
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.settings.model import VaultConfig, load_settings
from iotstack_invoke.vaults import access as vaults
from iotstack_invoke.vaults import folder as folders
from iotstack_invoke.vaults.access import vault_storage


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    """A drive that is not mounted is told as such, and found as soon as it is."""
    storage = vault_storage(VaultConfig("usb", str(tmp_path / "usb")))
    assert (storage.name, storage.root) == ("usb", str(tmp_path / "usb"))
    for _ in range(2):
        with pytest.raises(Unreachable, match="Is the drive mounted"):
            storage.listdir(storage.root)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "usb").mkdir()
    assert storage.listdir(storage.root) == {}
    storage.close()


def test_a_folder_that_is_missing_here_is_told_with_what_makes_it(tmp_path):
    """Once the drive is mounted; a file in its place is told as one."""
    storage = vault_storage(VaultConfig("usb", str(tmp_path / "My Backups")))
    with pytest.raises(
        Unreachable, match="When the drive is mounted, create it: `mkdir -p "
    ) as failure:
        storage.listdir(storage.root)
    pasted = str(failure.value).partition("`")[2].partition("`")[0]
    subprocess.run(["sh", "-c", pasted], check=True)
    assert storage.listdir(storage.root) == {}
    (tmp_path / "file").write_text("")
    storage = vault_storage(VaultConfig("usb", str(tmp_path / "file")))
    with pytest.raises(Unreachable, match=r"is a file, not a folder\..*`folder` in hosts.toml"):
        storage.listdir(storage.root)


def test_a_vault_that_nobody_used_opens_nothing(sshd):
    """Making a place of a vault, and closing it, costs no login."""
    storage = vault_storage(VaultConfig("nas", "/", sshd.login()))
    storage.close()
    assert "Accepted" not in (sshd.folder / "log").read_text()


def test_a_folder_that_is_missing_over_there_is_told_with_the_way_out(sshd, tmp_path):
    """Where the other machine lacks the folder, the message has the command that makes it."""
    storage = vault_storage(VaultConfig("nas", str(tmp_path / "far"), sshd.login()))
    with pytest.raises(Unreachable, match=r"has no folder .*far.*mkdir -p") as failure:
        storage.listdir(storage.root)
    found = unreached("vault nas", failure.value, sshd.login())
    assert "ssh -v" not in found.fix  # the login went well
    (tmp_path / "far").mkdir()
    assert storage.listdir(storage.root) == {}
    storage.close()


@pytest.mark.parametrize(
    "name", ["My Backups", "it's $HOME", "a`id`b", 'say "!"', "back\\slash", "plain"]
)
def test_the_command_that_makes_the_folder_does_so(sshd, tmp_path, name):
    """Pasted into a shell it makes that one folder, whatever both shells make of its name."""
    storage = vault_storage(VaultConfig("nas", str(tmp_path / "there" / name), sshd.login()))
    with pytest.raises(Unreachable) as failure:
        storage.listdir(storage.root)
    pasted = str(failure.value).partition("for example with `")[2].removesuffix("`.")
    subprocess.run(["bash", "-c", pasted], check=True)
    assert os.listdir(tmp_path / "there") == [name]
    assert storage.listdir(storage.root) == {}
    storage.close()


@pytest.mark.parametrize("extra", [(), ("ForceCommand internal-sftp",)], ids=["shell", "sftp"])
def test_a_file_over_there_is_told_as_one(start_sshd, tmp_path, extra):
    """Nobody is told to make a folder where a file lies."""
    (tmp_path / "far").write_text("")
    storage = vault_storage(
        VaultConfig("nas", str(tmp_path / "far"), start_sshd("nas", *extra).login())
    )
    with pytest.raises(Unreachable, match=r"is a file, not a folder.*`folder` in hosts.toml"):
        storage.listdir(storage.root)
    storage.close()


@pytest.mark.parametrize("extra", [(), ("ForceCommand internal-sftp",)], ids=["shell", "sftp"])
def test_the_folder_over_there_may_be_a_link(start_sshd, tmp_path, extra):
    """A folder that is a link to another disk is the folder that it leads to."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "far").symlink_to("disk")
    server = start_sshd("nas", *extra)
    storage = vault_storage(VaultConfig("nas", str(tmp_path / "far"), server.login()))
    storage.write(f"{storage.root}/x", io.BytesIO(b"x"), 0)
    assert set(storage.listdir(storage.root)) == {"x"}
    assert (tmp_path / "disk/x").read_bytes() == b"x"
    storage.close()


def test_a_vault_that_came_back_is_used(sshd, tmp_path):
    """A machine that refused us once is asked again by the next who needs it."""
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("")
    storage = vault_storage(VaultConfig("nas", str(tmp_path), sshd.login()))
    with pytest.raises(Unreachable, match="not known"):
        storage.stat([storage.root])
    sshd.known_hosts.write_text(known)
    assert storage.stat([storage.root])[storage.root].is_folder
    storage.close()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no such call")
class Faulty:
    """A place in which each question meets a fault of the program, or of its user's own."""

    name, root, resumes = "nas", "/vault", True

    def stat(self, paths):
        return {path: int("x" * 3) for path in paths}

    listdir = create_exclusive = rename = remove = run = stat

    @contextlib.contextmanager
    def read(self, _path, _start=0):
        yield io.BytesIO(b"x")
        raise KeyError(200)

    pipe = read


def test_a_fault_that_nobody_foresaw_costs_the_vault_alone():
    """It is told as one of ours, with where it arose; what else is raised meanwhile stays itself."""
    storage = vaults._Lazy("nas", "/vault", Faulty, None)
    for ask in (storage.stat, storage.listdir, storage.rename, storage.remove, storage.run):
        with pytest.raises(Unreachable, match=r"bug in this program.*ValueError: invalid lit"):
            ask("x")
    with pytest.raises(Unreachable, match=r"unexpected answer\. This is a bug in this program \("):
        storage.create_exclusive("x", "y")
    for enter in (storage.read, storage.pipe):
        with pytest.raises(Unreachable, match="KeyError: 200"), enter("x") as stream:
            assert stream.read() == b"x"
        with pytest.raises(ZeroDivisionError), enter("x"):
            raise ZeroDivisionError
    assert not hasattr(storage, "nothing of that name")
    with pytest.raises(Unreachable, match=r"vaults/access\.py, line \d+: ZeroDivisionError"):
        vaults._Lazy("nas", "/vault", lambda: 1 // 0, None).listdir("/vault")


def test_a_copy_is_read_back_from_the_drive(tmp_path, monkeypatch):
    """What the kernel has in memory of it proves nothing: it is let go of, when all is written."""
    path, done = tmp_path / "x", []

    def watched(name):
        real = getattr(os, name)

        def call(descriptor, *given):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                done.append((name, os.fstat(descriptor).st_size, *given))
            return real(descriptor, *given)

        monkeypatch.setattr(os, name, call)

    watched("fsync")
    watched("posix_fadvise")
    storage = vault_storage(VaultConfig("usb", str(tmp_path)))
    for start in (0, 1_000_000):
        path.write_bytes(bytes(start))
        done.clear()
        storage.write(str(path), io.BytesIO(bytes(3_000_000 - start)), 0, start)
        # Only what is on the drive already can be let go of.
        assert done[-2:] == [
            ("fsync", 3_000_000),
            ("posix_fadvise", 3_000_000, 0, 0, os.POSIX_FADV_DONTNEED),
        ]


# Folders: a drive that must be mounted


@pytest.fixture
def fstab(tmp_path, monkeypatch):
    """Another /etc/fstab, without a line."""
    monkeypatch.setattr(folders, "FSTAB", str(tmp_path / "fstab"))
    return tmp_path / "fstab"


def refused_everywhere(storage, match):
    """Expect that nothing is taken in, and that nothing lies there afterwards."""
    for act in (
        lambda: storage.listdir(storage.root),
        lambda: storage.create_exclusive(f"{storage.root}/mark", "mine"),
        lambda: storage.write(f"{storage.root}/x", io.BytesIO(b"x"), 0),
    ):
        with pytest.raises(Unreachable, match=match):
            act()
    assert os.listdir(storage.root) == []


def test_where_nothing_is_mounted_nothing_is_written(tmp_path, small_disk):
    """A vault that names its mount point is there only while something is mounted on that."""
    (tmp_path / "media/backups").mkdir(parents=True)
    storage = vault_storage(
        VaultConfig("usb", f"{tmp_path}/media/backups", mount=str(tmp_path / "media"))
    )
    refused_everywhere(storage, "Vault 'usb': nothing is mounted at .*/media. Mount the drive")
    (small_disk / "backups").mkdir()
    storage = vault_storage(VaultConfig("usb", f"{small_disk}/backups", mount=str(small_disk)))
    assert storage.write(f"{storage.root}/x", io.BytesIO(b"x"), 0).size_bytes == 1


def test_a_link_away_from_the_drive_is_refused(tmp_path, small_disk):
    """A folder that only seems to lie on the drive is not written into."""
    (tmp_path / "elsewhere").mkdir()
    (small_disk / "backups").symlink_to(tmp_path / "elsewhere")
    storage = vault_storage(VaultConfig("usb", f"{small_disk}/backups", mount=str(small_disk)))
    refused_everywhere(storage, ", which is not below")


def test_what_fstab_expects_must_be_mounted(tmp_path, fstab, small_disk):
    """Without a word in the settings, /etc/fstab is asked whether a drive belongs there."""
    drive = tmp_path / "my drive"
    (drive / "backups").mkdir(parents=True)
    storage = vault_storage(VaultConfig("usb", f"{drive}/backups"))
    written = str(drive).replace(" ", r"\040")
    fstab.write_text(f"# UUID=1 {written} ext4\n\nUUID=2 none swap sw 0 0\nnonsense\n")
    assert storage.listdir(storage.root) == {}
    fstab.write_text(f"UUID=1 {written} ext4 noauto 0 0\n")
    refused_everywhere(storage, "has a drive for .*/my drive, but nothing is mounted")
    fstab.write_text(f"tmpfs {small_disk} tmpfs noauto 0 0\n")
    storage = vault_storage(VaultConfig("usb", str(small_disk)))
    assert storage.listdir(storage.root) == {}


def test_a_drive_of_which_no_file_says_that_it_must_be_mounted_is_known(
    tmp_path, fstab, small_disk
):
    """The doctor can tell where a vault would be written beneath if its drive were away."""
    (small_disk / "backups").mkdir()
    assert folders.unnamed_mount(f"{small_disk}/backups") == str(small_disk)
    fstab.write_text(f"tmpfs {small_disk} tmpfs noauto 0 0\n")
    assert folders.unnamed_mount(f"{small_disk}/backups") == ""


def test_a_share_whose_server_hangs_is_given_up(tmp_path, monkeypatch):
    """A look that never ends is a vault that does not answer, and keeps nobody waiting."""
    asked = threading.Event()
    monkeypatch.setattr(folders, "ANSWER_LIMIT_S", 0.2)
    monkeypatch.setattr(folders, "fstab_points", lambda: asked.wait(60) and frozenset())
    storage = vault_storage(VaultConfig("share", str(tmp_path)))
    with pytest.raises(Unreachable, match=r"'share': .* did not answer within 0.2 s"):
        storage.listdir(storage.root)
    asked.set()


@pytest.mark.parametrize(("number", "asked"), [(errno.EACCES, False), (errno.EIO, True)])
def test_only_a_drive_that_may_be_away_is_asked_for(tmp_path, monkeypatch, number, asked):
    """A folder that is another user's is told as such, and no machine is suspected to be off."""

    def scandir(_folder):
        raise OSError(number, os.strerror(number))

    storage = vault_storage(VaultConfig("share", str(tmp_path)))
    storage.stat([])
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(Unreachable, match=os.strerror(number)) as failure:
        storage.listdir(storage.root)
    assert ("Is the machine that shares this folder switched on?" in str(failure.value)) == asked


def test_a_vault_that_cannot_be_listed_is_not_said_to_hold_ruins(little_stack, capsys):
    """Nothing is half removed where nobody could look; who copies there tells what is wrong."""

    class Shut(LocalHost):
        def listdir(self, folder):
            raise StepFailed(f"{folder} cannot be listed")

    environment = Environment.of(load_settings(str(little_stack.settings)))
    os.makedirs(environment.backups, exist_ok=True)
    environment = replace(environment, vaults={"nas": Shut("/")})
    _died, listed = recover_here(environment, Journal(environment.host, "/none", ()), Report())
    assert set(listed) == {"here"}
    assert capsys.readouterr().err == ""


def test_silent_vaults_are_waited_for_together(little_stack):
    """Before a backup: each of these answers only while the other is asked."""
    met = threading.Barrier(2, timeout=60)

    class Slow(LocalHost):
        def listdir(self, folder):
            met.wait()
            return LocalHost.listdir(self, folder)

    environment = Environment.of(load_settings(str(little_stack.settings)))
    os.makedirs(environment.backups, exist_ok=True)
    slow = {name: Slow(str(little_stack.folder), name) for name in ("nas", "usb")}
    environment = replace(environment, vaults=slow)
    _died, listed = recover_here(environment, Journal(environment.host, "/none", ()), Report())
    assert set(listed) == {"here", "nas", "usb"}


def test_a_backup_without_its_drive_ends_with_warnings(little_stack, tmp_path):
    """The backup is whole here, the vault is named, and nothing lies beneath the mount point."""
    (tmp_path / "media/backups").mkdir(parents=True)
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{tmp_path}/media/backups"\n'
            f'mount = "{tmp_path}/media"\n'
        )
    told = little_stack.run("backup --runtag away")
    assert told.returncode == 3
    assert told.stderr.count(f"nothing is mounted at {tmp_path}/media") == 1
    assert os.listdir(tmp_path / "media/backups") == []
    assert (little_stack.folder / "backups/away.manifest.json").exists()
