"""A claim where no file can be made only if there is none: each puts a mark beside it, and looks.

Who sees no mark but its own makes the claim. Two never do: of two marks the later one is put
before its owner looks, and the claim lies there before its maker's mark goes. Of several, the one
whose mark sorts first stays, the others wait. Holds where a place lists what was just written.
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
DEAD_S = 24 * 3600.0
"""A mark that is so much older than ours was left by a run that died."""
DIGITS = 16


class Markable(Protocol):
    """What claiming needs of a place."""

    name: str

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """As a Storage's."""
        ...

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """As a Storage's."""
        ...

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """As a Storage's."""
        ...

    def put(self, path: str, content: bytes) -> None:
        """Write a small file at once."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """As a Storage's."""
        ...


def claim_by_marks(storage: Markable, path: str, line: str, limit_s: float = LIMIT_S) -> str:
    """Make a file of one line where there is none, and return the line that is in it then.

    Returns "" where what is there cannot be read. Raises StepFailed where another's mark stays,
    Unreachable where ours is not listed: nothing else that is put there would be. Our mark is left
    there only where we are killed, or the line breaks.
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
                storage.put(ours, content)
            listed = storage.listdir(folder)
            if name in listed:
                return _line_in(storage, folder, name) or ""
            marks = [each for each in listed if pattern.fullmatch(each) and each != mark]
            others = _alive(storage, folder, listed, marks, mark)
            # It may be made while we listed, and its mark gone before it came up.
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
    """Return the name of the mark that whoever claims `name` with a line puts beside it."""
    return f"{name}.{hashlib.sha256(line.encode()).hexdigest()[:DIGITS]}"


def _make(storage: Markable, path: str, content: bytes) -> None:
    """Write the claim; half of one would keep everybody out."""
    try:
        storage.put(path, content)
    except StepFailed:
        with contextlib.suppress(StepFailed):
            storage.remove([path])
        raise


def _line_in(storage: Markable, folder: str, name: str) -> str | None:
    """Return the first line of a file, None where there is none that can be read."""
    content = storage.read_many(folder, [name]).get(name)
    if content is None:
        return None
    return "".join(content.decode("utf-8", "replace").splitlines()[:1])


def _alive(
    storage: Markable, folder: str, listed: dict[str, FileFact], marks: list[str], mark: str
) -> list[str]:
    """Return the marks of those who may still act; what a dead run left is removed."""
    if mark not in listed:
        return marks
    oldest_s = listed[mark].modified_s - DEAD_S
    dead = [each for each in marks if listed[each].modified_s < oldest_s]
    if dead:
        storage.remove(f"{folder}/{each}" for each in dead)
    return [each for each in marks if each not in dead]
