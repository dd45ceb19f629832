"""Folders that cannot hold a second copy: the stack itself, and the folder of another vault.

Links are followed, and two mounts of one folder are recognised by its inode. A vault on another
machine that leads back is recognised by a word that is changed in the backup folder. A folder
other than the vault's own that does not answer counts as different: a share that hangs fails its
own vault alone. Not for: whether a vault is reachable.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Callable, Container, Iterable, Iterator
from typing import TypeVar

from ..backups.names import BADGE, LOCK
from ..core.errors import StepFailed, Unreachable, WrongFolder
from ..core.stack_folders import BACKUPS, FOLDERS, RESTORE
from ..hosts.base import PARTIAL, FileFact, Storage
from ..hosts.local import within
from ..settings.model import StackConfig, VaultConfig

ANOTHER = "Set another folder in hosts.toml."
OUTSIDE = "Set a folder outside the stack in hosts.toml."
OTHER_LIMIT_S = 5.0
"""How long to wait for a folder that is not the vault's own."""
TRIES = 3
DATES_APART_S = 2.0
"""A FAT file system stores even seconds only."""
PACKED = "each backup would pack the copies in it, and a restore would move them away"


Around = list[tuple[str, os.stat_result | None]]
"""A folder and its parents up to the root, with links resolved; None: it does not exist."""
Answer = TypeVar("Answer")


class OwnFolder:
    """The folder of a stack's own backups, to be recognised if a vault leads back to it.

    If a vault lists the lock file, which no vault receives, a random word is written to a file
    here and looked for there: only the folder itself shows it at once, however recent a copy is.
    It needs no lock. If nothing can be written, a possible match does not count.
    """

    def __init__(self, host: Storage, folder: str, *, far: bool = False) -> None:
        self.far = far
        """It is on another machine: its inodes are not visible here, and read-only commands
        create no file there."""
        self._host = host
        self._folder = folder
        self._marks: tuple[str, ...] | None = None
        """Its files that are never copied to a vault; None: not looked for yet."""

    def prepare(self) -> None:
        """Look for such files, before a vault is listed; before the first run there are none."""
        if self._marks is None:
            self._marks = self._found()

    def _found(self) -> tuple[str, ...]:
        paths = {f"{self._folder}/{name}": name for name in (LOCK, BADGE)}
        with contextlib.suppress(StepFailed):
            found = self._host.stat(paths)
            return tuple(name for path, name in paths.items() if path in found)
        return ()

    def refuse(self, storage: Storage, listed: Container[str]) -> None:
        """Raise WrongFolder if a vault's root, with these names listed, is this folder.

        And Unreachable if that is unknown.
        """
        if not self._marks or not all(name in listed for name in self._marks):
            return
        is_own = self._sees_new_word(storage)
        mark = self._marks[-1]
        if is_own is None and self._is_alike(storage, mark):
            why = (
                f"Vault '{storage.name}': {storage.root} may be the folder of the stack's own "
                f"backups, so it does not count as a vault: {mark} has the same size and date in "
                f"both, and a test file cannot be written here, or {BADGE} cannot be read there."
            )
            fix = f"run this as the owner of {self._folder}, or set another folder in hosts.toml"
            raise Unreachable(f"{why} To fix: {fix}.", why=why, fix=fix)
        if is_own:
            raise WrongFolder(
                f"Vault '{storage.name}': {storage.root} is the folder of the stack's own "
                "backups (a file written in one appears in the other), so it holds no second "
                f"copy. {ANOTHER}"
            )

    def _sees_new_word(self, storage: Storage) -> bool | None:
        """Return whether a vault shows a word just written here; None if that is unknown.

        Another run may change it meanwhile: then it is tried again.
        """
        for _ in range(TRIES):
            word = _new_word()
            if not self._put(word):
                return None
            try:
                there = _word_in(storage, storage.root)
            except StepFailed as error:
                if isinstance(error, Unreachable) or error.again:
                    raise
                return None
            here = _word_in(self._host, self._folder)
            if there and there in (word, here):
                return True
            if here == word:
                return False
        return None

    def _put(self, word: str) -> bool:
        """Replace the word in the badge file atomically, and return whether that succeeded."""
        path = f"{self._folder}/{BADGE}"
        partial = f"{path}-{word}{PARTIAL}"
        try:
            self._host.create_exclusive(partial, word)
            self._host.rename(partial, path)
        except StepFailed:
            with contextlib.suppress(StepFailed):
                self._host.remove([partial])
            return False
        return True

    def _is_alike(self, storage: Storage, mark: str) -> bool:
        """Return whether the file that exists here and there looks the same by size and date."""
        before = _fact_in(self._host, self._folder, mark)
        there = _fact_in(storage, storage.root, mark)
        here = (before, _fact_in(self._host, self._folder, mark))
        return any(
            one.size_bytes == there.size_bytes
            and abs(one.modified_s - there.modified_s) <= DATES_APART_S
            for one in here
            if one and there
        )


def _new_word() -> str:
    return secrets.token_hex(16)


def _word_in(storage: Storage, folder: str) -> str:
    """Return the word in the badge of a folder, '' if there is none."""
    return storage.read_many(folder, [BADGE]).get(BADGE, b"").decode("utf-8", "replace").strip()


def _fact_in(storage: Storage, folder: str, name: str) -> FileFact | None:
    path = f"{folder}/{name}"
    return storage.stat([path]).get(path)


def folders_around(path: str) -> Around:
    """Return a folder and its parents; a host's folder is made by the first copy."""
    path = os.path.realpath(path)
    found: Around = [(path, _status(path))]
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        found.append((path, _status(path)))
    return found


def refuse_folder(
    vault: VaultConfig,
    root: str,
    around: Around,
    twins: Iterable[tuple[str, str]],
    *,
    of_others: bool = False,
) -> None:
    """Raise WrongFolder if a folder of this machine cannot hold a second copy.

    `root`: where the copies are, with its parents `around`; `twins`: other vaults of this machine
    and their roots. Copies `of_others`, of other machines, may be beside this one's backups.
    """
    if vault.stack and _is_stack(vault.stack.folder):
        if not of_others:
            _refuse_beside(vault.name, vault.stack, root, around)
        _refuse_packed(vault.name, vault.stack, root, around)
    for name, other in twins:
        if around[0][0] in (_asked(os.path.realpath, other), _in(around, other)):
            refuse_twin(vault.name, root, name)


def refuse_twin(name: str, root: str, other: str) -> None:
    """Raise WrongFolder for a vault with the same folder as another one."""
    raise WrongFolder(
        f"Vault '{name}': {root} is also the folder of vault '{other}', so it holds no second "
        f"copy. {ANOTHER[:-1]}, or remove one of the two."
    )


def _is_stack(folder: str) -> bool:
    """Return whether a folder contains a stack; a laptop's may hold copies of others instead."""
    from ..stack.compose import COMPOSE_FILES  # late, for the speed of a start

    return any(os.path.lexists(f"{folder}/{each}") for each in (*COMPOSE_FILES, ".env", *FOLDERS))


def _refuse_beside(name: str, stack: StackConfig, root: str, around: Around) -> None:
    """Raise WrongFolder for the stack's folder, its backup folder, and anything inside that.

    A separate drive mounted among the backups survives their removal. In the folder of restores
    none may be mounted: they refuse it.
    """
    own, kept = f"{stack.folder}/{BACKUPS}", f"{stack.folder}/{RESTORE}"
    if _in(around, stack.folder) == around[0][0]:
        raise _no_place(name, root, "is the folder of the stack: copies there are lost with it")
    found = _in(around, own)
    if found == around[0][0]:
        raise WrongFolder(
            f"Vault '{name}': {root} is the folder of the stack's own backups, so it holds no "
            f"second copy. {ANOTHER}"
        )
    if found and _drive_of(around) == _drive_of(around, found):
        why = "the folder of the stack's own backups, and is lost with it"
        raise _no_place(name, root, f"lies in {own}, {why}")
    if _in(around, kept):
        why = "where restores keep replaced data and remove old data"
        raise _no_place(name, root, f"lies in {kept}, {why}")


def _refuse_packed(name: str, stack: StackConfig, root: str, around: Around) -> None:
    """Raise WrongFolder for a folder inside what each backup packs, except what it leaves out."""
    from ..stack.inside import is_in
    from ..stack.stack_holdings import is_system  # late, as in _is_stack

    real, home = around[0][0], _in(around, stack.folder)
    links = tuple(_links(stack.folder))
    for path in (*FOLDERS, *(each.path for each in stack.inclusions), *links):
        folder = os.path.join(stack.folder, path)
        found = _in(around, folder)
        if not found or is_in(os.path.realpath(stack.folder), found):
            continue  # a folder that contains the stack is not packed
        if path in links and (home or is_system(found)):
            continue
        called = (f"{path}{real[len(found) :]}", *(() if home else (real,)))
        if not any(e.leaves_out(each) for e in stack.exclusions for each in called):
            raise _no_place(name, root, f"lies in {folder}: {PACKED}")


def _links(folder: str) -> Iterator[str]:
    """Yield the links in a stack's folders through which backups pack outside folders."""
    for path in FOLDERS:
        names = _asked(os.listdir, os.path.join(folder, path)) or ()
        links = (f"{path}/{each}" for each in sorted(names) if each[0] != ".")
        yield from (each for each in links if os.path.islink(f"{folder}/{each}"))


def _no_place(name: str, root: str, why: str) -> WrongFolder:
    return WrongFolder(
        f"Vault '{name}': {root} {why}. {OUTSIDE} Backups that are there already can be restored "
        f"by their path: `inv restore --from {shlex.quote(root)}`."
    )


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _asked(ask: Callable[[str], Answer], folder: str) -> Answer | None:
    """Return the answer about a folder that is not the vault's own; None if there is none."""
    try:
        return within(OTHER_LIMIT_S, f"The folder {folder}", lambda: ask(folder))
    except (OSError, StepFailed):
        return None


def _in(around: Around, folder: str) -> str:
    """Return which of some folders is the same, under any path; '' if none is."""
    status = _asked(os.stat, folder)
    same = (path for path, each in around if status and each and os.path.samestat(status, each))
    return next(same, "")


def _drive_of(around: Around, folder: str = "") -> int | None:
    """Return the device of one of some folders; without a name, of the innermost existing."""
    return next((e.st_dev for path, e in around if e and folder in ("", path)), None)
