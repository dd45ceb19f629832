"""Where no second copy can be: in the stack itself, or in the folder of another vault.

Links are followed, and mounts of one folder at two places are known by its inode. What leads back
from another machine is known by a word that we change in the folder of the backups. A folder that
is not the vault's own and does not answer is another one: a share that hangs costs its own vault
alone. Not for: whether a vault is there.
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
"""How long a folder is waited for that is not the vault's own."""
TRIES = 3
DATES_APART_S = 2.0
"""A FAT file system tells even seconds only."""
PACKED = "each backup would pack the copies in it, and a restore would move them away"


Around = list[tuple[str, os.stat_result | None]]
"""A folder and those around it, up to the root, with links followed; None: it is not there."""
Answer = TypeVar("Answer")


class OwnFolder:
    """The folder of a stack's own backups, to be known where a vault leads back to it.

    Where a vault lists what no vault of ours gets, the lock, a random word is put into a file here
    and looked for there: the folder itself has it at once, and no copy, however young. It needs no
    lock. Where nothing can be written, what may be the folder is not counted.
    """

    def __init__(self, host: Storage, folder: str, *, far: bool = False) -> None:
        self.far = far
        """It is on another machine: no inode of it is seen here, and who only looks makes nothing
        there."""
        self._host = host
        self._folder = folder
        self._marks: tuple[str, ...] | None = None
        """Files that lie in it and go to no vault; None: nobody has looked."""

    def prepare(self) -> None:
        """Look for such files, before a vault is listed; before the first run there is none."""
        if self._marks is None:
            self._marks = self._found()

    def _found(self) -> tuple[str, ...]:
        paths = {f"{self._folder}/{name}": name for name in (LOCK, BADGE)}
        with contextlib.suppress(StepFailed):
            found = self._host.stat(paths)
            return tuple(name for path, name in paths.items() if path in found)
        return ()

    def refuse(self, storage: Storage, listed: Container[str]) -> None:
        """Raise WrongFolder where a vault's root, of which that is listed, is this folder.

        And Unreachable where that cannot be told.
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
        """Tell whether a vault has the word that is new here; None where that cannot be told.

        Another run may change it as well meanwhile: then it is tried again.
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
        """Put a word into the badge at once, and tell whether that could be done."""
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
        """Tell whether the file that is both here and there is one by its size and its date."""
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
    """Return the word in the badge of a folder, '' where there is none."""
    return storage.read_many(folder, [BADGE]).get(BADGE, b"").decode("utf-8", "replace").strip()


def _fact_in(storage: Storage, folder: str, name: str) -> FileFact | None:
    path = f"{folder}/{name}"
    return storage.stat([path]).get(path)


def folders_around(path: str) -> Around:
    """Return a folder and those around it, of which that of a host is made by the first copy."""
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
    """Raise WrongFolder where a folder of this machine holds no second copy.

    `root`: where the copies lie, and `around` it; `twins`: other vaults of this machine with where
    theirs do. Copies `of_others`, other machines, may lie beside this one's backups.
    """
    if vault.stack and _is_stack(vault.stack.folder):
        if not of_others:
            _refuse_beside(vault.name, vault.stack, root, around)
        _refuse_packed(vault.name, vault.stack, root, around)
    for name, other in twins:
        if around[0][0] in (_asked(os.path.realpath, other), _in(around, other)):
            refuse_twin(vault.name, root, name)


def refuse_twin(name: str, root: str, other: str) -> None:
    """Raise WrongFolder for a vault with the folder of another one."""
    raise WrongFolder(
        f"Vault '{name}': {root} is also the folder of vault '{other}', so it holds no second "
        f"copy. {ANOTHER[:-1]}, or remove one of the two."
    )


def _is_stack(folder: str) -> bool:
    """Tell whether a stack lies in a folder: on a laptop other machines' copies may lie there."""
    from ..stack.compose import COMPOSE_FILES  # late, for the speed of a start

    return any(os.path.lexists(f"{folder}/{each}") for each in (*COMPOSE_FILES, ".env", *FOLDERS))


def _refuse_beside(name: str, stack: StackConfig, root: str, around: Around) -> None:
    """Raise WrongFolder for the stack's folder, that of its backups, and what lies in it.

    A drive of its own that is mounted among the backups stays when they go. In the folder of
    restores none may be mounted: they refuse it.
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
    """Raise WrongFolder for what lies in what each backup packs, but for what is left out."""
    from ..stack.inside import is_in
    from ..stack.stack_holdings import is_system  # late, as in _is_stack

    real, home = around[0][0], _in(around, stack.folder)
    links = tuple(_links(stack.folder))
    for path in (*FOLDERS, *(each.path for each in stack.inclusions), *links):
        folder = os.path.join(stack.folder, path)
        found = _in(around, folder)
        if not found or is_in(os.path.realpath(stack.folder), found):
            continue  # nothing is packed in which the stack lies
        if path in links and (home or is_system(found)):
            continue
        called = (f"{path}{real[len(found) :]}", *(() if home else (real,)))
        if not any(e.leaves_out(each) for e in stack.exclusions for each in called):
            raise _no_place(name, root, f"lies in {folder}: {PACKED}")


def _links(folder: str) -> Iterator[str]:
    """Yield the links of a stack's folders, in which backups pack what lies outside of it."""
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
    """Return what is told of a folder that is not the vault's own; None where nothing is."""
    try:
        return within(OTHER_LIMIT_S, f"The folder {folder}", lambda: ask(folder))
    except (OSError, StepFailed):
        return None


def _in(around: Around, folder: str) -> str:
    """Return which of some folders is that one, by whatever path; '' if none is."""
    status = _asked(os.stat, folder)
    same = (path for path, each in around if status and each and os.path.samestat(status, each))
    return next(same, "")


def _drive_of(around: Around, folder: str = "") -> int | None:
    """Return the device of one of some folders; without its name, of the innermost there is."""
    return next((e.st_dev for path, e in around if e and folder in ("", path)), None)
