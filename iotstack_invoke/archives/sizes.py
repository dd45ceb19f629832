"""How much a tar holds of each folder of a stack, counted while it is written.

Reads headers that GNU tar itself wrote, for a record: nothing is judged or unpacked by it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

BLOCK = 512
_WITH_DATA = frozenset({0, *b"07xgLKS"})
"""The types of members whose headers are followed by data (POSIX.1-2001, GNU tar)."""
_LONGEST_NOTE = 1 << 20
"""A pax header holds a name and a few attributes."""
_NO_MEMBER = frozenset(b"xgLK")
_PAX, _FOLDER = ord("x"), ord("5")
_LINKS = frozenset(b"12")
_ESCAPED = re.compile(r"\\x([89a-f][0-9a-f])")


class Sizes:
    """Counts bytes and files of each entry of some folders, and of other paths.

    `found`: bytes and files by path; both are 0 for an existing empty folder.
    """

    def __init__(self, paths: Iterable[str] = (), tops: Iterable[str] = ()) -> None:
        self.found: dict[str, list[int]] = {}
        self._paths = frozenset(map(_raw, paths))
        self._tops = frozenset(map(_raw, tops))
        self._deepest = max((path.count(b"/") for path in self._paths), default=0)
        self._rest = b""
        self._to_skip = 0
        self._note = b""
        self._folder = b""
        self._counted: tuple[list[int], ...] = ()
        self._broken = False
        self._is_any = False

    def take(self, chunk: bytes) -> None:
        """Count the next piece of the tar; unreadable content ends the counting."""
        if self._broken:
            return
        try:
            self._take(chunk)
        except ValueError:
            self._broken = True
            self.found.clear()

    @property
    def holds_none(self) -> bool:
        """Whether the tar holds no entry of those folders."""
        return not self._broken and not self._is_any

    def told(self) -> dict[str, list[int]]:
        """Return the counts, with paths that any text file can hold."""
        raw = {_raw(path): counts for path, counts in self.found.items()}
        return {path.decode("utf-8", "backslashreplace"): raw[path] for path in sorted(raw)}

    def _take(self, chunk: bytes) -> None:
        at, data = 0, self._rest + chunk if self._rest else chunk
        while True:
            if self._to_skip:
                step = min(self._to_skip, len(data) - at)
                at += step
                self._to_skip -= step
            if len(data) - at < BLOCK:
                break
            kind = data[at + 156]
            has_data = kind in _WITH_DATA
            size = _number(data[at + 124 : at + 136]) if has_data else 0
            padded = -(-size // BLOCK) * BLOCK
            if kind == _PAX and size <= _LONGEST_NOTE:
                if len(data) - at < BLOCK + padded:
                    break  # the rest of its content is to come
                self._note = data[at + BLOCK : at + BLOCK + size]
            elif data[at] and kind not in _NO_MEMBER:
                name = b""
                if self._note:
                    name = _noted(self._note, b"path")
                    size = int(_noted(self._note, b"size") or size) if has_data else 0
                    padded = -(-size // BLOCK) * BLOCK
                    self._note = b""
                self._count(name or _name(data[at : at + BLOCK]), kind, size)
            at += BLOCK
            self._to_skip = padded
        self._rest = data[at:]

    def _count(self, name: bytes, kind: int, size: int) -> None:
        path = name.removeprefix(b"./").rstrip(b"/")
        self._is_any = self._is_any or (b"/" in path and path.partition(b"/")[0] in self._tops)
        folder = path if kind == _FOLDER else path.rpartition(b"/")[0]
        if folder != self._folder:
            self._folder, self._counted = folder, tuple(self._items(folder))
        if kind == _FOLDER:
            return
        if kind in _LINKS:
            size = 1  # not 0: the link target may be in another folder
        for each in self._counted:
            each[0] += size
            each[1] += 1
        if path in self._paths or (folder in self._tops and b"/" not in folder):
            each = self.found.setdefault(_text(path), [0, 0])
            each[0] += size
            each[1] += 1

    def _items(self, folder: bytes) -> Iterable[list[int]]:
        """Yield the counts of all items that contain a path."""
        parts = folder.split(b"/")
        path = parts[0]
        for depth in range(max(self._deepest, 1) + 1):
            if depth:
                if depth >= len(parts):
                    return
                path += b"/" + parts[depth]
            if path in self._paths or (depth == 1 and parts[0] in self._tops):
                yield self.found.setdefault(_text(path), [0, 0])


def _number(field: bytes) -> int:
    """Return the number in a header: octal digits, or binary if it is too large."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.rstrip(b" \0") or b"0", 8)


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _noted(note: bytes, key: bytes) -> bytes:
    """Return the value of a key in a pax header, b'' if it has none."""
    at, found = 0, b""
    while at < len(note):
        length = int(note[at : note.index(b" ", at)])
        word, _, value = note[at : at + length].partition(b" ")[2].partition(b"=")
        if word == key:
            found = value[:-1]
        if length <= 0:
            raise ValueError(note)
        at += length
    return found


def unescaped(path: str) -> str:
    r"""Return a path of `told` with the bytes that are no text, as os.fsdecode gives them.

    Each `\\xe9` may also stand for itself: a name may hold a backslash.
    """
    return _ESCAPED.sub(lambda found: os.fsdecode(bytes.fromhex(found[1])), path)


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
