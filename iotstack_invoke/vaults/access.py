"""The storage of the vaults in the settings, opened at its first use.

A vault that does not answer fails only the jobs that need it. Each of them tries again, except
for a while after a timeout: a silent vault costs a run that time once.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import posixpath
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from ..core.errors import (
    FolderMissing,
    IotstackError,
    Refused,
    TimedOut,
    Unreachable,
    UsageError,
    WrongFolder,
    ended,
)
from ..hosts.base import FileFact, Received, Storage
from ..hosts.pasted import over_ssh
from ..settings.model import VaultConfig
from .apart import OwnFolder, refuse_twin
from .rate_limit import RateLimit

if TYPE_CHECKING:
    from .encrypted import EncryptedStorage

OWN_FOLDER = "."
"""Instead of a host's name: the folder of the vault itself."""
IN_VAIN_S = 15.0
"""If a request fails after this time, the vault is not asked again at once."""
LEFT_ALONE_S = 600.0
"""How long it is not asked then."""
SENDING_H = 20.0
"""For how long a run sends large files to a vault: the next night's run needs its lock."""
_GOES_ON = {
    True: "`inv sync` continues.",
    False: "A file that takes longer is never completed there: leave out more data, or use a "
    "faster connection.",
}
"""By whether a storage can resume a partial file."""
MOST_WHY_LETTERS = 200
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of machines that are also valid as folder names on any system."""

Held = TypeVar("Held")


def vault_storage(
    vault: VaultConfig,
    host: str = "",
    *,
    made: bool = False,
    of_others: bool = False,
    own: OwnFolder | None = None,
) -> Storage:
    """Return the storage of a vault; using it raises Unreachable if it does not answer.

    And WrongFolder if it cannot hold a second copy: also if it leads back to `own`, the folder of
    the backups that are copied. Copies `of_others`, of machines other than this, may be beside
    this one's backups; so may those in the folder of a `host`.

    In a vault with a folder for each machine it is that of `host`, or of this machine. The latter
    is made at the first write, and so is the former if it is to be `made`. Raises UsageError, at
    once, if such a vault is that of a machine whose name cannot be a folder's.
    """
    pace = RateLimit(vault.limit_rate) if vault.limit_rate else None
    root = _root_of(vault, host)
    of_others = of_others or host not in ("", OWN_FOLDER, socket.gethostname())
    if vault.by_host and host not in ("", OWN_FOLDER) and not made:
        name = f"{vault.name}/{host}"

        def opener() -> EncryptedStorage:
            return _open_folder(vault, host, name, of_others=of_others)

        return cast("Storage", _Lazy(name, root, opener, pace, own=own))
    makes_root = root != vault.folder
    lazy = _Lazy(
        vault.name,
        root,
        lambda: _open(vault, host, of_others=of_others),
        pace,
        makes_root=makes_root,
        own=own,
    )
    return cast("Storage", lazy)


def _root_of(vault: VaultConfig, host: str) -> str:
    """Return the folder with the copies of a host."""
    if not vault.by_host or host == OWN_FOLDER:
        return vault.folder
    return f"{vault.folder.rstrip('/')}/{host or _own_host()}"


def at_address(vaults: Iterable[VaultConfig], address: str) -> tuple[VaultConfig, str] | None:
    """Return the vault and the host that an address such as `nas/other-pi` names, or None.

    `nas/.` means the folder of the vault itself.
    """
    name, _, host = address.partition("/")
    for each in vaults:
        if each.name == name and each.by_host and (host == OWN_FOLDER or HOST.fullmatch(host)):
            return each, host
    return None


def other_hosts(vault: VaultConfig) -> tuple[str, ...]:
    """Return the addresses of what a by-host vault holds besides this machine's folder.

    Raises StepFailed if it does not answer.
    """
    storage = vault_storage(vault, OWN_FOLDER)
    try:
        names = storage.listdir(storage.root)
    finally:
        storage.close()
    own = _own_host()
    hosts = sorted(
        name
        for name, fact in names.items()
        if fact.is_folder and name != own and HOST.fullmatch(name)
    )
    return tuple(f"{vault.name}/{host}" for host in (*hosts, OWN_FOLDER))


def _own_host() -> str:
    name = socket.gethostname()
    if not HOST.fullmatch(name):
        raise UsageError(
            f"The name of this machine, {name!r}, is not a valid folder name, which layout = "
            "'by-host' needs. Rename the machine, or use a separate vault."
        )
    return name


def _open_folder(vault: VaultConfig, host: str, name: str, *, of_others: bool) -> EncryptedStorage:
    """Open a vault at the folder of another host; raises Unreachable if that does not exist."""
    storage, root = _open(vault, host, of_others=of_others), _root_of(vault, host)
    if not storage.listdir(root) and root not in storage.stat([root]):
        storage.close()
        raise Unreachable(
            f"{name}: the vault has no folder {root}. For the machines it has: inv list"
        )
    return storage


def encrypted_storage(storage: Storage) -> EncryptedStorage | None:
    """Return the storage of a vault, which knows what is encrypted there; None if it is no vault.

    Raises Unreachable if the vault does not answer.
    """
    if not isinstance(storage, _Lazy):
        return None
    storage.opened()
    return cast("EncryptedStorage", storage)


def is_signed(storage: Storage, manifest: str) -> bool:
    """Tell whether a manifest is the one that the encryption record of its set names."""
    side = encrypted_storage(storage)
    return side is None or side.is_signed(manifest)


def refuse_shut(storage: Storage, paths: Iterable[str]) -> None:
    """Raise Refused if a file is encrypted in a vault, and there is no key to decrypt it.

    A passphrase of the key is asked for now, before several files are read at once.
    """
    from .age import read_identity
    from .encrypted import ASK

    side = encrypted_storage(storage)
    for path in paths if side else ():
        if side and side.is_encrypted(path):
            if not side.identity:
                name = posixpath.basename(path)
                raise Refused(f"{name} in {storage.name} is encrypted. {ASK} Nothing was changed.")
            read_identity(side.identity)


def _open(vault: VaultConfig, host: str, *, of_others: bool) -> EncryptedStorage:
    from .encrypted import EncryptedStorage

    plain = _open_plain(vault, host, of_others=of_others)
    return EncryptedStorage(plain, vault.recipients, vault.identity)


def _before(vault: VaultConfig, host: str) -> Iterator[tuple[VaultConfig, str]]:
    """Yield the vaults listed before one that are on the same machine, with their folders.

    What a by-host vault holds outside of this machine's folder is in no flat vault.
    """
    for each in vault.before:
        same = (each.remote, _whose(each)) == (vault.remote, _whose(vault))
        if same and (each.by_host or host != OWN_FOLDER):
            yield each, _root_of(each, host)


def _whose(vault: VaultConfig) -> tuple[str, str, int] | None:
    return (vault.ssh.host, vault.ssh.user, vault.ssh.port) if vault.ssh else None


def _open_plain(vault: VaultConfig, host: str, *, of_others: bool) -> Storage:
    root = _root_of(vault, host)
    twins = [(each.name, where) for each, where in _before(vault, host)]
    for name, where in twins if vault.is_far else ():
        if where == root:
            refuse_twin(vault.name, root, name)
    if vault.remote:
        from .rclone import open_rclone

        cloud = open_rclone(vault.folder, vault.name, write_once=vault.write_once)
        if vault.write_once:
            from .write_once import WriteOnceStorage

            return WriteOnceStorage(cloud)
        return cloud
    if vault.ssh is None:
        from .folder import open_folder

        return open_folder(vault, root, twins, of_others=of_others)
    from ..hosts.ssh import open_storage  # Fabric takes a fifth of a second to import

    storage = open_storage(vault.ssh, vault.folder, vault.name)
    inside = f"{vault.folder}/."  # so that a link to a folder counts as one
    found = storage.stat([inside, vault.folder])
    if inside not in found or not found[inside].is_folder:
        storage.close()
        there = found.get(vault.folder)
        if there and there.is_file:
            raise FolderMissing(
                f"Vault '{vault.name}': {vault.folder} on {vault.ssh.host} is a file, not a "
                "folder. Set `folder` in hosts.toml to a folder there."
            )
        whose = "it" if vault.ssh.host == vault.name else vault.ssh.host
        raise FolderMissing(
            f"Vault '{vault.name}': {whose} has no folder {vault.folder}. Create it, for example "
            f"with `{over_ssh(vault.ssh, 'mkdir', '-p', vault.folder)}`."
        )
    return storage


class _Lazy:
    """Opens a storage at its first use, and again if that failed."""

    def __init__(
        self,
        name: str,
        root: str,
        opener: Callable[[], EncryptedStorage],
        pace: RateLimit | None,
        *,
        makes_root: bool = False,
        own: OwnFolder | None = None,
    ) -> None:
        self.name = name
        self.root = root
        self._opener = opener
        self._pace = pace
        self._makes_root = makes_root
        self._own = own
        """The stack's own backups; None once the vault is known to be another folder."""
        self._until_s = 0.0
        """When this run stops sending large files; set when the first is sent."""
        self._storage: EncryptedStorage | None = None
        self._lock = threading.Lock()
        self._refusal: tuple[float, Unreachable] | None = None
        """Until when the vault is not asked, and why."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.opened(), name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def asked(*words: Any, **given: Any) -> Any:
            with self._waiting(math.inf):
                answer = found(*words, **given)
            return self._held(answer) if hasattr(answer, "__enter__") else answer

        return asked

    def opened(self) -> EncryptedStorage:
        """Return the storage; raises Unreachable if it does not answer, or recently did not."""
        with self._lock:
            if self._refusal and time.monotonic() < self._refusal[0]:
                raise self._refusal[1]
            with self._waiting():
                self._storage = self._storage or self._opener()
            return self._storage

    @contextlib.contextmanager
    def _waiting(
        self, in_vain_s: float | None = None, others: Sequence[BaseException] = ()
    ) -> Iterator[None]:
        """Remember a failure after a long wait: other jobs need not wait as well.

        An unexpected error becomes Unreachable, so that it fails this vault alone; except for
        those among `others`, which did not arise in the storage.
        """
        began_s = time.monotonic()
        try:
            yield
        except Unreachable as error:
            if any(error is each for each in others):
                raise
            now_s = time.monotonic()
            waited_s = now_s - began_s
            in_vain = waited_s >= (in_vain_s or IN_VAIN_S) and type(error) is Unreachable
            if in_vain or isinstance(error, TimedOut):
                told = (
                    f"{ended(error)} It is not contacted again for {LEFT_ALONE_S / 60:.0f} "
                    "minutes."
                )
                self._refusal = (now_s + LEFT_ALONE_S, Unreachable(told))
            raise
        except IotstackError:
            raise
        except Exception as error:
            if any(error is each for each in others):
                raise
            raise _unforeseen(self.name, error) from error

    @contextlib.contextmanager
    def _held(self, given: AbstractContextManager[Held]) -> Iterator[Held]:
        """Enter and leave a context of the storage; errors of the block are not the storage's."""
        raised: list[BaseException] = []
        with self._waiting(math.inf, raised), given as held:
            try:
                yield held
            except BaseException as error:
                raised.append(error)
                raise

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of those paths that exist; a missing path has no entry."""
        storage = self.opened()
        with self._waiting():
            return storage.stat(paths)

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name, {} if it does not exist."""
        storage = self.opened()
        own = self._own if folder == self.root else None
        if own and getattr(storage, "is_on_disk", False) and not own.far:
            own = None  # already compared by inode
        if own:
            own.prepare()
        with self._waiting():
            found = storage.listdir(folder)
        if own:
            self._refuse_own(own, storage, found)
        return found

    def _refuse_own(
        self, own: OwnFolder, storage: EncryptedStorage, listed: Container[str]
    ) -> None:
        """Give up a vault for this run if it is the folder of the stack's own backups."""
        try:
            with self._waiting():
                own.refuse(cast("Storage", storage), listed)
        except WrongFolder as error:
            self._refusal = (math.inf, error)
            raise
        self._own = None

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder."""
        storage = self.opened()
        with self._waiting():
            return storage.read_many(folder, names)

    def _writable(self) -> EncryptedStorage:
        """Return the storage, with its root folder created at the first call."""
        storage = self.opened()
        if self._makes_root:
            storage.mkdir(self.root)
            self._makes_root = False
        return storage

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds."""
        with self._waiting():
            return self._writable().create_exclusive(path, line)

    def write(self, path: str, source: IO[bytes], *rest: Any, **more: Any) -> Received:
        """Write a stream like the storage does, no faster than the vault's limit.

        If the time of this run is up, the received part stays: the next run resumes it, if the
        storage can.
        """
        self._until_s = self._until_s or time.monotonic() + SENDING_H * 3600
        with self._waiting(math.inf):
            storage = self._writable()
            late = (
                f"Vault '{self.name}' is slow: this run has sent data to it for {SENDING_H:g} "
                "hours. It stops now, so that the next backup can start in time. "
                f"{_GOES_ON[storage.resumes]}"
            )
            paced = (self._pace or RateLimit()).stream(source, self._until_s, late)
            return storage.write(path, paced, *rest, **more)

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes, no faster than the vault's limit."""
        with self._held(self.opened().read(path, start)) as stream:
            yield self._pace.stream(stream) if self._pace else stream

    def close(self) -> None:
        """Close the storage if it was opened."""
        if self._storage is not None:
            with self._waiting(math.inf):
                self._storage.close()


def _unforeseen(name: str, error: Exception) -> Unreachable:
    """Return the failure of a vault for a bug in this package, with its location in the code."""
    ours = os.path.dirname(os.path.dirname(__file__))
    frames = traceback.extract_tb(error.__traceback__)
    at = next((e for e in reversed(frames) if e.filename.startswith(ours)), frames[-1])
    where = f"{os.path.relpath(at.filename, ours)}, line {at.lineno}"
    why = f"{type(error).__name__}: {error}"[:MOST_WHY_LETTERS]
    return Unreachable(
        f"Vault '{name}': unexpected answer. This is a bug in this program ({where}: {why}). "
        "Please report it."
    )
