"""Where no second copy can be: in the stack itself, or in the folder of another vault.

Links are followed, and mounts of one folder at two places are known by its inode. What leads back
from another machine is known by the lock of the backups. Not for: whether a vault is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from ..errors import WrongFolder
from ..rules import BACKUPS, RESTORE
from ..services.table import FOLDERS
from ..settings import Stack, Vault

ANOTHER = "Name another folder in hosts.toml."
OUTSIDE = "Name a folder outside of the stack in hosts.toml."
PACKED = "each backup would pack the copies in it, and a restore would move them away"


def refuse_own_lock(name: str, root: str, there: bytes, here: bytes) -> None:
    """Raise WrongFolder where the lock that lies in a vault has the text of that of the backups.

    A run that holds it has written a text of its own, so it is the same file. Of a run that holds
    none it may be a copy that somebody made since the last one.
    """
    if there and there == here:
        raise WrongFolder(
            f"Vault '{name}': {root} is the folder of the stack's own backups (the same lock lies "
            f"in both), so it holds no second copy. {ANOTHER} If it is a copy of that folder, "
            "remove the .lock in it."
        )


def refuse_folder(vault: Vault, root: str, twins: Iterable[tuple[str, str]]) -> None:
    """Raise WrongFolder where a folder of this machine holds no second copy.

    `root`: where the copies lie; `twins`: other vaults of this machine with where theirs do.
    """
    around = list(_around(root))
    if vault.stack:
        _refuse_in_stack(vault.name, vault.stack, root, around)
    for name, other in twins:
        if os.path.realpath(root) in (os.path.realpath(other), _in(around, other)):
            refuse_twin(vault.name, root, name)


def refuse_twin(name: str, root: str, other: str) -> None:
    """Raise WrongFolder for a vault with the folder of another one."""
    raise WrongFolder(
        f"Vault '{name}': {root} is the folder of vault '{other}' too, so it holds no second "
        f"copy. {ANOTHER[:-1]}, or leave out one of the two."
    )


Around = list[tuple[str, os.stat_result]]


def _refuse_in_stack(name: str, stack: Stack, root: str, around: Around) -> None:
    own = f"{stack.folder}/{BACKUPS}"
    found = _in(around, own)
    if found == os.path.realpath(root):
        raise WrongFolder(
            f"Vault '{name}': {root} is the folder of the stack's own backups, so it holds no "
            f"second copy. {ANOTHER}"
        )
    if found:
        why = "the folder of the stack's own backups, and goes when that goes"
        raise WrongFolder(f"Vault '{name}': {root} lies in {own}, {why}. {OUTSIDE}")
    kept = f"{stack.folder}/{RESTORE}"
    if _in(around, kept):
        why = "where restores keep what they replaced, and remove what is old"
        raise WrongFolder(f"Vault '{name}': {root} lies in {kept}, {why}. {OUTSIDE}")
    for path in (*FOLDERS, *(each.path for each in stack.inclusions)):
        folder = os.path.join(stack.folder, path)
        found = _in(around, folder)
        inside = f"{path}{os.path.realpath(root)[len(found) :]}"
        if found and not any(each.leaves_out(inside) for each in stack.exclusions):
            raise WrongFolder(f"Vault '{name}': {root} lies in {folder}: {PACKED}. {OUTSIDE}")


def _around(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield a folder, as far as it is there, and those around it, up to the root."""
    path = os.path.realpath(path)
    while True:
        with contextlib.suppress(FileNotFoundError):  # that of a host is made by the first copy
            yield path, os.stat(path)
        if path == os.path.dirname(path):
            return
        path = os.path.dirname(path)


def _in(around: Around, folder: str) -> str:
    """Return which of some folders is that one, by whatever path; '' if none is."""
    try:
        status = os.stat(folder)
    except OSError:
        return ""
    return next((path for path, each in around if os.path.samestat(status, each)), "")
