"""Claims for storage that cannot create files exclusively: each claimant adds a mark, and looks.

A claimant that sees no mark but its own makes the claim. Two never do: of two marks the later one
is put before its owner looks, and the claim exists before its maker's mark is removed. Of several,
the one whose mark sorts first stays, the others wait. Requires that a listing shows recent writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterable
from typing import Protocol

from ..core import processes
from ..core.errors import Interrupted, StepFailed, Unreachable
from ..hosts.base import FileFact

LIMIT_S = 60.0
PAUSE_S = 0.2
SETTLE_S = 0.5
DEAD_S = 24 * 3600.0
"""A mark that is older than ours by this was left by a crashed run."""
DIGITS = 16


class Markable(Protocol):
    """The part of a Storage that claims need."""

    name: str

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Like a Storage's."""
        ...

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Like a Storage's."""
        ...

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Like a Storage's."""
        ...

    def put(self, path: str, content: bytes) -> None:
        """Write a small file in one request."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Like a Storage's."""
        ...


def claim_by_marks(storage: Markable, path: str, line: str, limit_s: float = LIMIT_S) -> str:
    """Create a file of one line unless it exists, and return the line it then holds.

    Returns "" if the existing file cannot be read. Raises StepFailed if another claimant's mark
    stays, Unreachable if ours is not listed: then no other new file would be. Our mark is left
    there only if this process is killed, or the connection is lost.
    """
    folder, _, name = path.rpartition("/")
    told = _line_in(storage, folder, name)
    if told is not None:
        return told
    mark = mark_of(name, line)
    ours, content = f"{folder}/{mark}", f"{line}\n".encode()
    pattern = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{{DIGITS}}}")
    others: list[str] = []
    marked = False
    deadline = time.monotonic() + limit_s
    try:
        while time.monotonic() < deadline:
            if not any(each < mark for each in others) and not marked:
                marked = True
                _put(storage, ours, content)
            listed = storage.listdir(folder)
            if name in listed:
                return _line_in(storage, folder, name) or ""
            marks = [each for each in listed if pattern.fullmatch(each) and each != mark]
            others = _alive(storage, folder, listed, marks, mark)
            # The claim may be made during our listing, and its mark removed before we reached it.
            if marked and mark in listed and not others and not storage.stat([path]):
                _make(storage, path, content)
                return line
            if marked and any(each < mark for each in others):
                storage.remove([ours])
                marked = False
            if processes.ending():
                raise Interrupted(15)
            time.sleep(PAUSE_S)
    finally:
        if marked:
            with contextlib.suppress(StepFailed):
                storage.remove([ours])
    if not others:
        raise Unreachable(
            f"Vault '{storage.name}' accepted {ours}, but does not list it after {limit_s:g} s."
        )
    raise StepFailed(
        f"Another run is copying a backup of the same name to {storage.name}: its mark is "
        f"{folder}/{others[0]}. If that run crashed, remove the mark."
    )


def mark_of(name: str, line: str) -> str:
    """Return the name of the mark that a claimant of `name` with this line puts beside it."""
    return f"{name}.{hashlib.sha256(line.encode()).hexdigest()[:DIGITS]}"


def _put(storage: Markable, path: str, content: bytes) -> None:
    """Write a file; after a failure, wait until it can be removed.

    A server may still be about to store what it refused: `rclone serve sftp` on a full disk
    showed the file after it had denied that there was one (1.60).
    """
    try:
        storage.put(path, content)
    except StepFailed:
        time.sleep(SETTLE_S)
        raise


def _make(storage: Markable, path: str, content: bytes) -> None:
    """Write the claim; a partial one would block everyone."""
    try:
        _put(storage, path, content)
    except StepFailed:
        with contextlib.suppress(StepFailed):
            storage.remove([path])
        raise


def _line_in(storage: Markable, folder: str, name: str) -> str | None:
    """Return the first line of a file, None if there is none or it cannot be read."""
    content = storage.read_many(folder, [name]).get(name)
    if content is None:
        return None
    return "".join(content.decode("utf-8", "replace").splitlines()[:1])


def _alive(
    storage: Markable, folder: str, listed: dict[str, FileFact], marks: list[str], mark: str
) -> list[str]:
    """Return the marks of claimants that may be active; those of crashed runs are removed."""
    if mark not in listed:
        return marks
    oldest_s = listed[mark].modified_s - DEAD_S
    dead = [each for each in marks if listed[each].modified_s < oldest_s]
    if dead:
        storage.remove(f"{folder}/{each}" for each in dead)
    return [each for each in marks if each not in dead]
