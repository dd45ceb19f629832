"""One shard of a portable InfluxDB 1.x dump: a compressed tar of TSM files, verified by itself.

Neither the catalogue nor the dump's own list is known here: `check.py` compares a shard with
them.
"""

from __future__ import annotations

import struct
import tarfile
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import IO, Final

from ...core.dataclass import dataclass
from ...core.gzip_streams import Content, Damaged

_BLOCK: Final = 512
_PAX_BYTES: Final = 1024 * 1024
_TSM_START: Final = b"\x16\xd1\x16\xd1\x01"
_TSM_END = struct.Struct(">Q")
_TAIL_BYTES: Final = 8 * 1024 * 1024
_KEY_SIZE = struct.Struct(">H")
_KEY_KIND = struct.Struct(">BH")
_ENTRY = struct.Struct(">qqQI")
_KINDS = 5  # float, integer, boolean, string, unsigned
_SUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class Shard:
    """The contents of one shard's file: its bytes unpacked, its members, and its problems."""

    bytes: int
    members: tuple[tuple[str, int], ...]
    damage: str
    again: bool  # a second dump may cure the damage


@dataclass(frozen=True, slots=True)
class TsmReport:
    """Whether all blocks of a shard are sound (no problems) and how many were read."""

    problems: tuple[str, ...]
    files: int
    blocks: int


def read_shard(stream: IO[bytes]) -> Shard:
    """Return what a shard's file holds, read to its end or to the first damage."""
    content = Content(stream)
    sizes: dict[str, int] = {}
    damage, again = "", False
    try:
        for name, size in _members(content):
            if name in sizes:  # a cut download, followed by the second attempt
                raise Damaged(f"it contains {name} twice, as after a lost connection")  # noqa: TRY301
            sizes[name] = size
            if is_tsm(name) and not _has_tsm_ends(content, size):
                damage = f"{name} is not a complete TSM file; InfluxDB would restore nothing of it"
    except Damaged as error:
        damage, again = str(error), True
    return Shard(content.at, tuple(sizes.items()), damage, again)


def check_tsm_blocks(open_stream: Callable[[], IO[bytes]], *, file: str = "") -> TsmReport:
    """Return whether every block of every .tsm file of a shard matches its checksum.

    For damage from before the dump: no part of InfluxDB checks these sums during a restore. The
    shard is read twice, three times if an index has more than 8 MiB; only the positions of the
    blocks are kept, 12 bytes each. An index has no checksum: wrong times in it are not found.
    `open_stream` must return the .tar.gz from its start each time; the streams are closed here.
    """
    label = file or "shard"
    try:
        with open_stream() as stream:
            indexes = _read_indexes(Content(stream), {})
        lacking = {each.name: each.lacks for each in indexes if each.lacks}
        if lacking:
            with open_stream() as stream:
                indexes = _read_indexes(Content(stream), lacking)
        with open_stream() as stream:
            bad = _read_blocks(Content(stream), {each.name: each for each in indexes})
    except Damaged as damage:
        return TsmReport((f"{label}: {damage}.",), 0, 0)
    broken = [f"{label}: {each.name}: {each.damage}." for each in indexes if each.damage]
    return TsmReport(
        problems=(*broken, *(f"{label}: {each}." for each in bad)),
        files=len(indexes),
        blocks=sum(len(each.sizes) for each in indexes),
    )


def _members(content: Content) -> Iterator[tuple[str, int]]:
    """Yield each file in the tar with its size, `content` positioned at its first byte.

    The caller may read any part of it. The end must be two blocks of zeros and nothing else, as
    Go's tar writer leaves it and as in all known dumps.
    """
    path, size = "", -1  # from a PAX header, for the next member
    while (block := content.take(_BLOCK)).count(0) != _BLOCK:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.HeaderError:
            raise Damaged("the tar inside is damaged: a header is missing") from None
        if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            path, size = _pax(content, header.size)
            continue
        wide = header.size if size < 0 else size
        end = content.at + -(-wide // _BLOCK) * _BLOCK
        if header.isreg():
            yield path or header.name, wide
        content.skip(end - content.at)
        path, size = "", -1
    if content.take(_BLOCK).count(0) != _BLOCK:
        raise Damaged("the tar inside is damaged: it does not end with two blocks of zeros")
    content.end()


def _pax(content: Content, size: int) -> tuple[str, int]:
    """Return the path and size in a PAX header; "" and -1 if it has none.

    Go writes one for names beyond ASCII and for members of 8 GiB and more.
    """
    if size > _PAX_BYTES:
        raise Damaged("the tar inside is damaged: an impossible header")
    data = content.take(-(-size // _BLOCK) * _BLOCK)[:size]
    path, member = "", -1
    try:
        while data:
            length = int(data[: data.index(b" ")])
            key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
            data = data[max(length, 1) :]
            if key == b"path":
                path = value.decode("utf-8", "replace")
            elif key == b"size":
                member = int(value)
    except ValueError:
        raise Damaged("the tar inside is damaged: a header that cannot be read") from None
    return path, member


def is_tsm(name: str) -> bool:
    """Return whether a member is a TSM file."""
    return name.endswith(".tsm")


def _has_tsm_ends(content: Content, size: int) -> bool:
    if size < len(_TSM_START) + _TSM_END.size or content.take(len(_TSM_START)) != _TSM_START:
        return False
    content.skip(size - len(_TSM_START) - _TSM_END.size)
    (index_at,) = _TSM_END.unpack(content.take(_TSM_END.size))
    return len(_TSM_START) <= int(index_at) <= size - _TSM_END.size


@dataclass(frozen=True, slots=True)
class _Index:
    """The positions of the blocks of one .tsm file, in its order."""

    name: str
    offsets: array[int]
    sizes: array[int]
    damage: str = ""
    lacks: int = 0  # how many bytes are missing at the file's end


def _read_indexes(content: Content, keep: Mapping[str, int]) -> list[_Index]:
    """Return the index of each .tsm file.

    An index is at the end of its file, so the last bytes are kept while reading.
    """
    return [
        _read_index(name, size, _read_tail(content, size, keep.get(name, _TAIL_BYTES)))
        for name, size in _members(content)
        if is_tsm(name)
    ]


def _read_tail(content: Content, size: int, keep: int) -> bytes:
    pieces: deque[memoryview] = deque()
    kept = 0
    for piece in content.pieces(size):
        pieces.append(piece)
        kept += len(piece)
        while kept - len(pieces[0]) >= keep:
            kept -= len(pieces.popleft())
    return b"".join(pieces)


def _read_index(name: str, size: int, tail: bytes) -> _Index:
    index = _Index(name, array("Q"), array("I"))
    if len(tail) < _TSM_END.size:
        return replace(index, damage="too short for a TSM file")
    (index_at,) = _TSM_END.unpack(tail[-_TSM_END.size :])
    if not len(_TSM_START) <= index_at <= size - _TSM_END.size:
        return replace(index, damage="its last bytes do not lead to an index")
    if size - index_at > len(tail):
        return replace(index, lacks=size - index_at)
    at, stop = len(tail) - (size - index_at), len(tail) - _TSM_END.size
    last_key, free_from = b"", len(_TSM_START)
    try:
        while at < stop:
            (key_size,) = _KEY_SIZE.unpack_from(tail, at)
            key = tail[at + _KEY_SIZE.size : at + _KEY_SIZE.size + key_size]
            at += _KEY_SIZE.size + key_size
            kind, count = _KEY_KIND.unpack_from(tail, at)
            at += _KEY_KIND.size
            entries = tail[at : at + count * _ENTRY.size]
            at += count * _ENTRY.size
            if key <= last_key or kind >= _KINDS or not count or at > stop:
                raise ValueError  # noqa: TRY301
            for first, last, offset, length in _ENTRY.iter_unpack(entries):
                if first > last or offset < free_from or length <= _SUM_BYTES:
                    raise ValueError  # noqa: TRY301
                free_from = offset + length
                index.offsets.append(offset)
                index.sizes.append(length)
            last_key = key
        if free_from > index_at:
            raise ValueError  # noqa: TRY301
    except (ValueError, struct.error):
        return _Index(name, array("Q"), array("I"), damage="its index is damaged")
    return index


def _read_blocks(content: Content, indexes: Mapping[str, _Index]) -> list[str]:
    """Return a sentence for each .tsm file with blocks that do not match their checksum."""
    told = []
    for name, _ in _members(content):
        if name not in indexes:
            continue
        at, bad, index = 0, 0, indexes[name]
        for offset, size in zip(index.offsets, index.sizes, strict=True):
            content.skip(offset - at)
            at = offset + size
            wanted = int.from_bytes(content.take(_SUM_BYTES), "big")
            found = 0
            for piece in content.pieces(size - _SUM_BYTES):
                found = zlib.crc32(piece, found)
            bad += found != wanted
        if bad:
            told.append(
                f"{name}: {bad} of {len(index.sizes)} blocks do not match their checksum; a "
                "restore would load wrong values"
            )
    return told
