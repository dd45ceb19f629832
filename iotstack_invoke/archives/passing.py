"""Filters a tar while it is written: members that no restore accepts are left out.

GNU tar packs devices and paths of any length, and a restore refuses the whole archive because of
one of them. Filtering in the stream reads nothing twice. Not for: archives that may be damaged or
hostile (scan.py asks the tar that unpacks them); this one is being written on this machine.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from ..core.stack_folders import FOLDERS
from ..engine.steps import StepContext
from ..stack.compose import is_top_file
from .links_out import LinksOut
from .scan import BLOCK_BYTES, MOST_NAMES, TOO_LONG, Judge, shape_of

_LETTERS = {
    ord("0"): "-",
    0: "-",
    ord("7"): "C",
    ord("S"): "-",
    ord("1"): "h",
    ord("2"): "l",
    ord("3"): "c",
    ord("4"): "b",
    ord("5"): "d",
    ord("6"): "p",
}
_WITHOUT_CONTENT = frozenset("hlcbdp")
_ZEROS = bytes(BLOCK_BYTES)
_MORE = b"xgLK"
"""The types of a header that extends the next one."""


class Passing:
    """Takes a tar in pieces and returns them, without the members that are left out."""

    def __init__(self, judge: Judge, links: LinksOut | None = None) -> None:
        self.judge = judge
        self.links = links
        self.left_out: dict[str, list[str]] = {}
        """Names by why they are left out."""
        self.refused: dict[str, list[str]] = {}
        """The same for members that a restore will refuse although the archive holds them."""
        self._waiting = b""
        self._content_bytes = 0
        self._keeps = True
        self._ended = False
        self.is_tar = True

    def take(self, piece: bytes) -> list[bytes]:
        """Return the output for a piece; part of an incomplete header is held back."""
        data = self._waiting + piece if self._waiting else piece
        self._waiting = b""
        kept: list[bytes] = []
        at = begun = 0
        while at < len(data) and not self._ended:
            if self._content_bytes:
                size = min(self._content_bytes, len(data) - at)
                self._content_bytes -= size
                at += size
                if not self._keeps:
                    begun = at
                continue
            try:
                found = _next_header(data, at)
            except ValueError:  # not a tar: the check of its end reports that
                self.is_tar, self._ended = False, True
                break
            if found is None:
                kept.append(data[begun:at])
                self._waiting = data[at:]
                return kept
            letter, name, link, size, end = found
            if not letter:
                self._ended = True
                break
            self._keeps = self._is_kept(letter, name, size, link)
            if not self._keeps:
                kept.append(data[begun:at])
                begun = end
            at = end
            if letter not in _WITHOUT_CONTENT:
                self._content_bytes = size + -size % BLOCK_BYTES
        kept.append(data[begun:])
        return kept

    def end(self) -> bytes:
        """Return what is held back: the beginning of an incomplete header."""
        return self._waiting

    def warn(self, context: StepContext) -> None:
        """Warn of what was left out and of what a restore will refuse, by the reason."""
        for why, names in self.left_out.items():
            context.warn(f"left out, because it cannot be restored: {why}: {_listed(names)}")
        for why, names in self.refused.items():
            context.warn(f"a restore will refuse this backup: {why}: {_listed(names)}")

    def _is_kept(self, letter: str, name: bytes, size: int, link: bytes) -> bool:
        told = name.decode("utf-8", "surrogateescape")
        to = link.decode("utf-8", "surrogateescape")
        why = self.judge.judge(letter, told, size, to)
        if self.links and letter == "l":
            self.links.take(told, to)
        if not why:
            return True
        leaves_out = letter in "bc" or why == TOO_LONG
        (self.left_out if leaves_out else self.refused).setdefault(why, []).append(told)
        return not leaves_out


def stack_judge(members: Iterable[str]) -> Judge:
    """Return a judge for a general part made of these members."""
    paths = (posixpath.normpath(each) for each in members)
    return Judge(
        shape_of("general", [e for e in paths if e not in FOLDERS and not _is_top_file(e)])
    )


def _is_top_file(path: str) -> bool:
    return "/" not in path and is_top_file(path)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(repr, names[:MOST_NAMES])) + more


def _next_header(data: bytes, at: int) -> tuple[str, bytes, bytes, int, int] | None:
    """Return type, name, link, size and end of a header; None if it is incomplete.

    The type is '' at the end of the tar.
    """
    more: dict[bytes, bytes] = {}
    while True:
        block = data[at : at + BLOCK_BYTES]
        if len(block) < BLOCK_BYTES:
            return None
        at += BLOCK_BYTES
        if block == _ZEROS:
            return "", b"", b"", 0, at
        if block[257:262] != b"ustar":
            raise ValueError("something else than a tar")
        kind, size = block[156], _number(block[124:136])
        if kind not in _MORE:
            break
        end = at + size + -size % BLOCK_BYTES
        if len(data) < end:
            return None
        body = data[at : at + size]
        if kind in b"xg":
            more.update(_records(body))
        else:
            more[b"path" if kind == ord("L") else b"linkpath"] = body.rstrip(b"\0")
        at = end
    name = block[:100].rstrip(b"\0").split(b"\0")[0]
    before = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    name = (
        more.get(b"GNU.sparse.name")
        or more.get(b"path")
        or (before + b"/" + name if before else name)
    )
    link = more.get(b"linkpath") or block[157:257].split(b"\0")[0]
    return _LETTERS.get(kind, chr(kind)), name, link, int(more.get(b"size", size)), at


def _number(field: bytes) -> int:
    """Return a number of a header: octal digits, or binary if these are too few."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _records(body: bytes) -> dict[bytes, bytes]:
    """Return the records of an extended header: each is `30 path=…` and a newline."""
    found = {}
    while body:
        digits, _, _ = body.partition(b" ")
        size = int(digits)
        key, _, value = body[len(digits) + 1 : size - 1].partition(b"=")
        found[key] = value
        body = body[size:]
    return found
