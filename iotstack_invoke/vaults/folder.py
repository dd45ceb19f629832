"""A vault in a folder of this machine: a USB drive, a mounted share, a folder of Dropbox.

Nothing is written beneath a mount point: if a drive is not mounted where one belongs, the vault
is unreachable. Not for: other machines (ssh.py).
"""

from __future__ import annotations

import errno
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable
from functools import partial
from typing import IO, TypeVar

from ..core.errors import StepFailed, TimedOut, Unreachable, ended
from ..hosts.base import FileFact, Received
from ..hosts.hashing import HashedStream
from ..hosts.local import (
    SLOWEST_BYTES_S,
    STALL_S,
    LocalHost,
    Patience,
    read_chunk,
    while_it_moves,
    within,
    words_of,
)
from ..settings.model import VaultConfig
from .apart import folders_around, refuse_folder
from .rate_limit import SMALL_BYTES

ANSWER_LIMIT_S = 30.0
"""The limit of a question: the server of a mounted share may be gone for good."""
MOUNTS = "/proc/self/mountinfo"
FSTAB = "/etc/fstab"
OCTAL = re.compile(r"\\([0-7]{3})")
"""How spaces are escaped in both files (proc_pid_mountinfo(5), fstab(5))."""

Answer = TypeVar("Answer")


class FolderStorage(LocalHost):
    """The folder, checked before each write."""

    def __init__(self, vault: VaultConfig) -> None:
        super().__init__(vault.folder, vault.name)
        self._vault = vault
        self._given_up = False
        """A change timed out."""
        self._copies: set[Patience] = set()
        """Large copies in progress."""

    def check(self) -> None:
        """Raise Unreachable if the folder or its mount is missing."""
        self._answered(self._check)

    def refuse_wrong(
        self, root: str, twins: Iterable[tuple[str, str]], *, of_others: bool = False
    ) -> None:
        """Raise WrongFolder if it cannot hold a second copy; as in open_folder."""
        around = self._answered(lambda: folders_around(root))
        refuse_folder(self._vault, root, around, twins, of_others=of_others)

    @property
    def is_on_disk(self) -> bool:
        """Whether it is on a disk of this machine: then its inode identifies the folder."""
        try:
            return os.major(os.stat(self.root).st_dev) != 0
        except OSError:
            return False

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of those paths that exist; a missing path has no entry."""
        return self._answered(lambda: LocalHost.stat(self, paths))

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name; {} if the folder does not exist."""
        self.check()
        return self._answered(lambda: LocalHost.listdir(self, folder))

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder; missing files and non-files have no entry."""
        try:
            return self._answered(lambda: LocalHost.read_many(self, folder, names))
        except Unreachable as error:
            if isinstance(error.__cause__, StepFailed) and _is_refused(error.__cause__):
                raise error.__cause__ from None  # that file's permissions, not the drive
            raise

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes of the file system of `folder`; None if unknown."""
        return self._answered(lambda: LocalHost.free_bytes(self, folder))

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds."""
        self.check()
        return self._changed(lambda: LocalHost.create_exclusive(self, path, line))

    def mkdir(self, path: str) -> None:
        """Make a folder unless it exists."""
        self.check()
        self._changed(lambda: LocalHost.mkdir(self, path))

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, so that it survives a power cut."""
        self._changed(lambda: LocalHost.rename(self, old, new))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""
        for path in paths:  # one by one: after a timeout at most one removal happens later
            self._changed(partial(LocalHost.remove, self, [path]))

    def set_date(self, path: str, modified_s: float) -> None:
        """Set the date of a file; that of a partial file when it is renamed."""
        self._changed(lambda: LocalHost.set_date(self, path, modified_s))

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,
    ) -> Received:
        """Write a stream after the first `start` bytes of `path`, and read the whole file back.

        Reads from the drive if the kernel drops its cache, as Linux does. Raises TimedOut if there
        is no progress for long.
        """
        self.check()
        is_large = size_bytes is None or size_bytes > SMALL_BYTES
        still_s = STALL_S if is_large else ANSWER_LIMIT_S
        patience = Patience(still_s)

        def copy() -> Received:
            written = start
            with LocalHost.create(self, path, start) as target:
                while chunk := _read_in_peace(source, patience, still_s):
                    target.write(chunk)
                    written += len(chunk)
                patience.allow(still_s + written / SLOWEST_BYTES_S)
            LocalHost.set_date(self, path, modified_s)
            with self.read(path) as arrived:
                if hasattr(os, "posix_fadvise"):  # missing on macOS
                    os.posix_fadvise(arrived.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found = HashedStream(arrived)
                while found.read():
                    patience.allow(still_s)
                return found.received

        if is_large:
            self._copies.add(patience)
        try:
            return self._changed(copy, patience)
        finally:
            self._copies.discard(patience)

    def _answered(self, ask: Callable[[], Answer]) -> Answer:
        self._refuse_given_up()
        try:
            return within(ANSWER_LIMIT_S, f"the folder {self.root}", ask)
        except StepFailed as error:
            if isinstance(error, Unreachable) and not isinstance(error, TimedOut):
                raise
            advice = "" if _is_refused(error) else f" {IS_IT_ON}"
            raise Unreachable(f"Vault '{self.name}': {ended(error)}{advice}") from error

    def _changed(self, change: Callable[[], Answer], patience: Patience | None = None) -> Answer:
        """Return the result of a change; raises TimedOut if it makes no progress.

        After that the vault is not used any more: the change may still happen at any time.
        A small change waits for the large copies, whose bytes a disk may have to write first.
        """
        self._refuse_given_up()
        patience = patience or Patience(STALL_S if self._copies else ANSWER_LIMIT_S)
        try:
            return while_it_moves(patience, f"the folder {self.root}", change)
        except TimedOut as error:
            raise TimedOut(f"Vault '{self.name}': {ended(error)} {IS_IT_ON}") from error
        finally:
            if patience.is_over:
                self._given_up = True

    def _refuse_given_up(self) -> None:
        if self._given_up:
            raise TimedOut(
                f"Vault '{self.name}': an operation in the folder {self.root} did not end. "
                f"{IS_IT_ON}"
            )

    def _check(self) -> None:
        folder, mount = os.path.realpath(self.root), self._vault.mount
        if mount:
            if not is_mounted(os.path.realpath(mount)):
                raise Unreachable(f"Vault '{self.name}': nothing is mounted at {mount}. {ADVICE}")
            if not _lies_in(folder, os.path.realpath(mount)):
                raise Unreachable(
                    f"Vault '{self.name}': {self.root} is a link to {folder}, which is not below "
                    f"{mount}. Correct `folder` or `mount` in hosts.toml."
                )
        else:
            for each in sorted(fstab_points()):
                if _lies_in(folder, each) and not is_mounted(each):
                    raise Unreachable(
                        f"Vault '{self.name}': {FSTAB} has a drive for {each}, but nothing is "
                        f"mounted there. {ADVICE}"
                    )
        if os.path.isfile(folder):
            raise Unreachable(
                f"Vault '{self.name}': {self.root} is a file, not a folder. Correct `folder` in "
                "hosts.toml."
            )
        if not os.path.isdir(folder):
            make = shlex.join(("mkdir", "-p", self.root))
            raise Unreachable(
                f"The folder of vault '{self.name}' is missing: {self.root}. Is the drive "
                "mounted? This program does not create the folder, because it could hide below "
                f"a mount point. When the drive is mounted, create it: `{make}`."
            )


def _read_in_peace(source: IO[bytes], patience: Patience, still_s: float) -> bytes:
    """Return the next bytes of a stream that may wait for a rate limit, outside of the vault."""
    patience.allow(math.inf)
    chunk = read_chunk(source)
    patience.allow(still_s)
    return chunk


def _is_refused(error: StepFailed) -> bool:
    """Return whether the system refused something to this user."""
    return getattr(error.__cause__, "errno", None) in (errno.EACCES, errno.EPERM)


IS_IT_ON = "Is the machine that shares this folder switched on?"
ADVICE = "Mount the drive, then run the same command again. Until then nothing is written there."


def open_folder(
    vault: VaultConfig, root: str, twins: Iterable[tuple[str, str]], *, of_others: bool = False
) -> FolderStorage:
    """Return the storage of a vault in a folder; raises Unreachable if it is missing now.

    `root`: the folder of the copies, in it; `twins`: the vaults listed before it, with their
    roots. Raises WrongFolder if those are no second copies; copies `of_others` are other
    machines'.
    """
    storage = FolderStorage(vault)
    storage.check()
    storage.refuse_wrong(root, twins, of_others=of_others)
    return storage


def unnamed_mount(folder: str) -> str:
    """Return the mount point of a folder if no file says that a drive must be mounted there.

    '' if it is on the root's disk, or /etc/fstab lists the mount point.
    """
    above = [each for each in mount_points() if _lies_in(os.path.realpath(folder), each)]
    nearest = max(above, key=len, default="/")
    return "" if nearest == "/" or nearest in fstab_points() else nearest


def is_mounted(folder: str) -> bool:
    """Return whether a folder is a mount point now; macOS has no list of them."""
    return folder in mount_points() or os.path.ismount(folder)


def mount_points() -> frozenset[str]:
    """Return the folders that are mount points now (proc_pid_mountinfo(5))."""
    return _fields(MOUNTS, 4)


def fstab_points() -> frozenset[str]:
    """Return the mount points in /etc/fstab."""
    return frozenset(each for each in _fields(FSTAB, 1) if each.startswith("/"))


def _fields(file: str, number: int) -> frozenset[str]:
    """Return one field of each line of a file, empty if the file does not exist.

    Raises StepFailed if it cannot be read: a drive that belongs there may not be mounted.
    """
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            lines = [line.split() for line in stream if not line.lstrip().startswith("#")]
    except FileNotFoundError:  # macOS
        return frozenset()
    except OSError as error:
        raise StepFailed(f"Cannot read {file}: {words_of(error)}.") from error
    return frozenset(
        OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[number])
        for fields in lines
        if len(fields) > number
    )


def _lies_in(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder
