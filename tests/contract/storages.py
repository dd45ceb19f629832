"""The kinds of places that the contract holds for: how each is opened, cut, filled and looked at.

A kind gives
    place       a Place whose root is an empty folder of a small file system
    raw         that folder, as the far side's disk has it
    another()   one more Place of the same folder, with a connection of its own
    cut()       what happens amid a transfer when the line breaks; it may raise
    go(), come_back()   the far side is gone, and there again with what it held
    sessions()  how many times the far side was asked for something, or None
    fill(left_bytes), make_room()
    odd_names   whether names that are no UTF-8 text, and those with line breaks, can be stored
    odd_files   whether pipes and links can lie there
    keeps_dates whether a file has the date that it is sent with
    looks_anew  whether a listing tells at once what became of a file behind the server's back
    follows     whether a file there may be a link that leads elsewhere
    halves      whether a file is seen under its name before all of it came
    many_sets   how many are listed where many are
"""

import contextlib
import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from contexts import until
from sshd import Sshd, require_sshd

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.hosts import ssh as remote
from iotstack_invoke.hosts.sftp_storage import SftpStorage
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage

DISK_BYTES = 48 << 20


def mount(*words):
    """Mount; where CI promised that we may, fail if we may not."""
    done = subprocess.run(["mount", *words], check=False, capture_output=True, text=True)
    if done.returncode and os.environ.get("CI") == "true":
        pytest.fail(f"mount {words}: {done.stderr}")
    if done.returncode:
        pytest.skip("only root can mount a small disk")


class Kind:
    """What all kinds share: a small disk, with `raw` on it."""

    odd_names = True
    odd_files = True
    keeps_dates = True
    looks_anew = True
    follows = True
    halves = True
    many_sets = 1000

    def __init__(self, folder):
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.mount_disk()
        self.raw = self.disk / "far away"
        self.raw.mkdir()
        self.storages = []

    def mount_disk(self):
        mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", self.disk)

    def open(self, vault):
        """Return a place that is closed at the end."""
        self.storages.append(vault_storage(vault))
        return self.storages[-1]

    def close(self):
        for storage in self.storages:
            storage.close()
        subprocess.run(["umount", "--lazy", self.disk], check=True)

    def spelt(self, name):
        """Return a name, without what the server of this kind cannot store."""
        return name

    def needs_a_disk(self):
        """Skip where no disk can be full."""

    def until_begun(self, partial, arrived=0):
        """Wait until more of a file has arrived."""
        until(lambda: partial.stat().st_size > arrived)

    def fill(self, left_bytes=0):
        """Leave no more than so much of the disk, but for what it needs itself."""
        free = os.statvfs(self.disk)
        start, size = 0, free.f_bavail * free.f_frsize - left_bytes
        with open(self.disk / "filler", "wb") as stream:
            while size >= free.f_frsize:
                try:
                    os.posix_fallocate(stream.fileno(), start, size)
                except OSError:
                    size //= 2
                else:
                    start += size
                    size = 0 if left_bytes else size // 2

    def make_room(self):
        os.unlink(self.disk / "filler")


class FolderKind(Kind):
    """A drive with ext4 that is mounted here; one in memory where there are no loop devices."""

    def mount_disk(self):
        if not shutil.which("mkfs.ext4"):
            super().mount_disk()
            return
        image = self.disk.with_name("image")
        with open(image, "wb") as stream:
            stream.truncate(DISK_BYTES)
        words = ["mkfs.ext4", "-q", "-m", "0", image]
        subprocess.run(words, check=True, capture_output=True)
        words = ["mount", "-o", "loop", image, self.disk]
        if subprocess.run(words, check=False, capture_output=True).returncode:
            super().mount_disk()

    def __init__(self, folder, _servers):
        super().__init__(folder)
        self.mount_point = folder / "media"
        self.mount_point.mkdir()
        self.come_back()
        self.storage = self.another()

    def another(self):
        folder = self.mount_point / self.raw.name
        return self.open(VaultConfig("nas", str(folder), mount=str(self.mount_point)))

    def close(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.go()
        super().close()

    def cut(self):
        raise StepFailed("the drive was pulled out", again=True)

    def go(self):
        words = ["umount", "--lazy", self.mount_point]
        subprocess.run(words, check=True, capture_output=True)

    def come_back(self):
        mount("--bind", self.disk, self.mount_point)

    def sessions(self):
        return None


class SshKind(Kind):
    """A machine with a shell and SFTP, its bytes going through the `ssh` program."""

    extra = ()
    sftp = True
    class_of_storage = SshHost

    def __init__(self, folder, servers):
        require_sshd()
        super().__init__(folder)
        machine = self.machine(folder)
        # What sees another login shell sees no disk that is mounted later: one for each test.
        name = f"{type(self).__name__} {folder if machine else ''}"
        if name not in servers:
            extra = (*self.extra, "LogLevel VERBOSE")
            servers[name] = Sshd(folder / "server", extra, sftp=self.sftp, **machine)
        self.server = servers[name]
        self.storage = self.another()
        self.storage.stat(["/"])
        assert isinstance(self.storage._storage._inner, self.class_of_storage)

    def machine(self, _folder):
        """Return the programs and the login shell of the far side, where they are not ours."""
        return {}

    def another(self):
        return self.open(VaultConfig("nas", str(self.raw), self.server.login()))

    def cut(self):
        self.server.cut()

    def close(self):
        if self.server.process.poll() is not None:
            self.come_back()
        super().close()

    def go(self):
        self.server.cut()
        self.server.stop()

    def come_back(self):
        self.server.start()

    def sessions(self):
        return (self.server.folder / "log").read_text().count("Starting session")


class TcshKind(SshKind):
    """A machine whose login shell is no kin of sh, as FreeBSD's was, and which greets."""

    def machine(self, folder):
        shell = shutil.which("tcsh")
        if not shell:
            pytest.skip("there is no tcsh")
        return {"shell": shell}


class BusyBoxKind(SshKind):
    """A machine that has BusyBox's programs alone, as a router or a NAS has."""

    def machine(self, folder):
        if not shutil.which("busybox"):
            pytest.skip("there is no busybox")
        tools = folder / "tools"
        tools.mkdir()
        subprocess.run(["busybox", "--install", "-s", tools], check=True)
        return {"shell": tools / "ash", "path": tools}


class ScpOnlyKind(SshKind):
    """A machine with a shell and without SFTP: `scp -O` is all that people have there."""

    sftp = False


class ChannelKind(SshKind):
    """A machine with a shell, from one that has no `ssh` program."""

    def __init__(self, folder, servers):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(remote, "shutil", SimpleNamespace(which=lambda _name: None))
        super().__init__(folder, servers)

    def close(self):
        super().close()
        self.patch.undo()


class SftpOnlyKind(SshKind):
    """A machine that gives files and no shell."""

    extra = ("ForceCommand internal-sftp",)
    class_of_storage = SftpStorage


class OldSftpKind(SftpOnlyKind):
    """A server that speaks none of OpenSSH's extensions."""

    extra = ("ForceCommand internal-sftp -P posix-rename,statvfs,fsync",)


KINDS = {
    "folder": FolderKind,
    "ssh": SshKind,
    "ssh-busybox": BusyBoxKind,
    "ssh-channel": ChannelKind,
    "ssh-scp-only": ScpOnlyKind,
    "ssh-sftp-only": SftpOnlyKind,
    "ssh-tcsh": TcshKind,
    "ssh-old-sftp": OldSftpKind,
}
