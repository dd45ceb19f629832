"""Proves a portable InfluxDB 1.x dump whole from its files alone, in one pass.

influxd exits 0 with a shard cut in the middle, and its restore checks neither gzip's checksum nor
the size in the manifest; this room does. Files may come in any order and from streams that cannot
seek, such as a tar being read. It does not know where they come from and asks no server.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import tarfile
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Final, cast

from ..gzips import open_reader
from .influx_meta import INTERNAL, Catalogue, ShardPlace, read_meta

if TYPE_CHECKING:
    from typing_extensions import Buffer

_DEFLATE_ERRORS: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error)
try:
    from isal import isal_zlib

    _DEFLATE_ERRORS = (*_DEFLATE_ERRORS, cast("type[Exception]", isal_zlib.error))
except ImportError:  # no wheel for this machine
    pass


@dataclass(frozen=True, slots=True)
class ShardFact:
    """What the dump holds of one shard; `start_ns` is None if the catalogue lacks the shard."""

    id: int
    database: str
    policy: str
    start_ns: int | None
    file: str
    bytes: int  # of the tar inside, as in the manifest
    tsm: tuple[tuple[str, int], ...]  # member name without folders, size; a restore keeps both


@dataclass(frozen=True, slots=True)
class DumpReport:
    """Whether a dump is whole (no problems) and what is in it.

    `again`: a second dump may cure the problems. `shards` leaves out InfluxDB's own statistics,
    which are only counted: a restore leaves them out as well.
    """

    problems: tuple[str, ...]
    again: bool
    databases: tuple[str, ...]
    shards: tuple[ShardFact, ...]
    internal_shards: int
    continuous_queries: int
    users: int
    catalogue: Catalogue | None  # None if the dump has none that can be read


@dataclass(frozen=True, slots=True)
class TsmReport:
    """Whether all blocks of a shard are sound (no problems) and how many were read."""

    problems: tuple[str, ...]
    files: int
    blocks: int


class DumpCheck:
    """Takes the files of one dump one by one, then reports on all of them together."""

    def __init__(self) -> None:
        self._manifests: dict[str, _Manifest] = {}
        self._catalogues: dict[str, Catalogue | _Damaged] = {}
        self._shards: dict[str, _Shard] = {}
        self._early = _Problems()

    def add(self, name: str, stream: IO[bytes]) -> None:
        """Read one file to its end, or to where it proves damaged; folders in `name` are ignored.

        Raises only what reading `stream` raises. Memory stays flat however large the file is.
        """
        name = name.rpartition("/")[2]
        known = _NAME.fullmatch(name)
        if not known:
            unfinished = name.endswith((".00", ".pending"))
            what = "left by a dump that was not finished" if unfinished else "not part of a dump"
            self._early.add(f"{name}: {what}.", again=unfinished)
        elif name in self._shards or name in self._catalogues or name in self._manifests:
            self._early.add(f"{name}: there twice.")
        elif known["shard"]:
            self._shards[name] = _read_shard(stream)
        elif known["kind"] == "meta":
            self._catalogues[name] = _read_catalogue(stream)
        else:
            self._manifests[name] = _read_manifest(name, stream)

    def report(self) -> DumpReport:
        """Return what all files added so far say together; `add` may go on afterwards."""
        problems = _Problems(self._early)
        newest = self._newest(problems)
        catalogue = self._catalogue(newest, problems)
        self._find_strangers(newest, problems)
        places = catalogue.places if catalogue else None
        facts = [fact for listed in newest.files if (fact := self._fact(listed, places, problems))]
        return DumpReport(
            problems=tuple(problems.told),
            again=problems.again,
            databases=catalogue.names if catalogue else (),
            shards=tuple(each for each in facts if each.database != INTERNAL),
            internal_shards=sum(each.database == INTERNAL for each in facts),
            continuous_queries=len(catalogue.continuous_queries) if catalogue else 0,
            users=len(catalogue.users) if catalogue else 0,
            catalogue=catalogue,
        )

    def _newest(self, problems: _Problems) -> _Manifest:
        """The manifest that counts: names begin with the time, so the last one."""
        if not self._manifests:
            problems.add("There is no .manifest: the dump was not finished.", again=True)
            return _Manifest("", "", 0, (), "")
        names = sorted(self._manifests)
        if len(names) > 1:
            problems.add(
                f"{len(names)} dumps share this folder ({', '.join(names)}); a restore mixes them."
                f" Give every dump a new, empty folder."
            )
        newest = self._manifests[names[-1]]
        if newest.damage:
            problems.add(f"{newest.name}: {newest.damage}.", again=True)
        return newest

    def _catalogue(self, newest: _Manifest, problems: _Problems) -> Catalogue | None:
        if not newest.meta_file:  # said already; without a manifest show what there is
            return next((c for c in self._catalogues.values() if isinstance(c, Catalogue)), None)
        found = self._catalogues.get(newest.meta_file)
        if found is None:
            problems.add(f"{newest.meta_file}: the catalogue is missing.", again=True)
            return None
        if isinstance(found, _Damaged):
            problems.add(f"{newest.meta_file}: {found}.", again=True)
            return None
        if found.size_bytes != newest.meta_bytes:
            problems.add(
                f"{newest.meta_file}: the catalogue has {found.size_bytes} bytes, the manifest "
                f"says {newest.meta_bytes}.",
                again=True,
            )
        return found

    def _find_strangers(self, newest: _Manifest, problems: _Problems) -> None:
        if newest.damage or not newest.name:
            return
        listed = {each.file for one in self._manifests.values() for each in one.files}
        listed |= {each.meta_file for each in self._manifests.values()}
        for name in sorted({*self._shards, *self._catalogues} - listed):
            problems.add(f"{name}: in no manifest, so left by another dump.")

    def _fact(
        self, listed: _Listed, places: Mapping[int, ShardPlace] | None, problems: _Problems
    ) -> ShardFact | None:
        """What is known of one file of the manifest; None if it is missing or damaged."""
        where = f"{listed.file} (database {listed.database}, shard {listed.id})"
        place = places.get(listed.id) if places is not None else None
        if places is not None and not place and listed.database != INTERNAL:
            problems.add(
                f"{where}: not in the dump's catalogue, so it would not be restored. It was made "
                f"while the dump ran.",
                again=True,
            )
        elif place and (place.database, place.policy) != (listed.database, listed.policy):
            problems.add(f"{where}: by the catalogue it is of {place.database}.{place.policy}.")
        shard = self._shards.get(listed.file)
        if shard is None:
            problems.add(f"{where}: the file is missing.", again=True)
            return None
        folder = f"{listed.database}/{listed.policy}/{listed.id}/"
        if shard.damage:
            problems.add(f"{where}: {shard.damage}.", again=shard.again)
            return None
        if shard.bytes != listed.bytes:
            problems.add(
                f"{where}: holds {shard.bytes} bytes, the manifest says {listed.bytes}.",
                again=True,
            )
        elif stranger := next((n for n, _ in shard.members if not n.startswith(folder)), ""):
            problems.add(f"{where}: holds {stranger}, which is of another shard.")
        return ShardFact(
            id=listed.id,
            database=listed.database,
            policy=listed.policy,
            start_ns=place.start_ns if place else None,
            file=listed.file,
            bytes=shard.bytes,
            tsm=tuple((n.rpartition("/")[2], s) for n, s in shard.members if _is_tsm(n)),
        )


def check_tsm_blocks(open_stream: Callable[[], IO[bytes]], *, file: str = "") -> TsmReport:
    """Return whether every block of every .tsm file of a shard fits its own checksum.

    For damage from before the dump: no part of InfluxDB looks at these sums when it restores. The
    shard is read twice, thrice if an index has more than 8 MiB; only the places of the blocks are
    kept, 12 bytes each. An index has no checksum: wrong times in it are not found.
    `open_stream` must give the .tar.gz from its start each time; the streams are closed here.
    """
    label = file or "shard"
    try:
        with open_stream() as stream:
            indexes = _read_indexes(_Content(stream), {})
        lacking = {each.name: each.lacks for each in indexes if each.lacks}
        if lacking:
            with open_stream() as stream:
                indexes = _read_indexes(_Content(stream), lacking)
        with open_stream() as stream:
            bad = _read_blocks(_Content(stream), {each.name: each for each in indexes})
    except _Damaged as damage:
        return TsmReport((f"{label}: {damage}.",), 0, 0)
    broken = [f"{label}: {each.name}: {each.damage}." for each in indexes if each.damage]
    return TsmReport(
        problems=(*broken, *(f"{label}: {each}." for each in bad)),
        files=len(indexes),
        blocks=sum(len(each.sizes) for each in indexes),
    )


_NAME = re.compile(
    r"\d{8}T\d{6}Z\.(s(?P<shard>\d+)\.tar\.gz|(?P<kind>meta|manifest))", flags=re.ASCII
)
_CHUNK: Final = 256 * 1024
_SMALL_BYTES: Final = 8 * 1024 * 1024  # a manifest of 40,000 shards
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


class _Damaged(Exception):
    """What is wrong with a file, as the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class _Listed:
    id: int
    database: str
    policy: str
    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class _Manifest:
    name: str
    meta_file: str
    meta_bytes: int
    files: tuple[_Listed, ...]
    damage: str


@dataclass(frozen=True, slots=True)
class _Shard:
    bytes: int
    members: tuple[tuple[str, int], ...]
    damage: str
    again: bool  # a second dump may cure the damage


class _Problems:
    def __init__(self, before: _Problems | None = None) -> None:
        self.told: list[str] = list(before.told) if before else []
        self.again: bool = before.again if before else False

    def add(self, text: str, *, again: bool = False) -> None:
        self.told.append(text)
        self.again = self.again or again


class _Counted(io.RawIOBase):
    """A stream that remembers how much was read of it and the last bytes."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.count = 0
        self.last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        data = self._source.read(len(view))
        view[: len(data)] = data
        self.count += len(data)
        self.last = (self.last + data[-8:])[-8:]
        return len(data)


class _Content:
    """What a .gz holds, taken in pieces; whatever is wrong with it raises _Damaged."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._source = _Counted(stream)
        self._reader = open_reader(cast("IO[bytes]", self._source))
        self._piece = memoryview(b"")
        self.at = 0

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly `size` bytes; a piece stays valid."""
        while size > 0:
            if not self._piece and not self._refill():
                raise _Damaged("it is cut: the tar inside has no end")
            part = self._piece[:size]
            self._piece = self._piece[len(part) :]
            self.at += len(part)
            size -= len(part)
            yield part

    def take(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        for _ in self.pieces(size):
            pass

    def end(self) -> None:
        """Make sure that nothing follows, neither inside nor behind the compressed data."""
        if self._piece or self._refill():
            raise _Damaged("there is something after the end of the tar inside")
        # Zeros after the end, as a crash leaves them, are skipped by the reader without a word.
        if self._source.last[4:] != struct.pack("<I", self.at % 2**32):
            raise _Damaged("there is something after the end of the compressed data")

    def _refill(self) -> bool:
        try:
            self._piece = memoryview(self._reader.read(_CHUNK))
        except EOFError:
            raise _Damaged("it is cut in the middle") from None
        except _DEFLATE_ERRORS as error:
            raise _Damaged(f"its compressed data is damaged ({error})") from None
        if not self._source.count:
            raise _Damaged("it is empty")
        return bool(self._piece)


def _members(content: _Content) -> Iterator[tuple[str, int]]:
    """Each file in the tar with its size, `content` standing at its first byte.

    The caller may take any part of it. At the end: two blocks of zeros and nothing else, as Go's
    tar writer leaves it and all dumps seen had it.
    """
    path, size = "", -1  # what a PAX header said of the next member
    while (block := content.take(_BLOCK)).count(0) != _BLOCK:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.HeaderError:
            raise _Damaged("the tar inside is damaged: no header where one must be") from None
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
        raise _Damaged("the tar inside is damaged: its end is not two blocks of zeros")
    content.end()


def _pax(content: _Content, size: int) -> tuple[str, int]:
    """The path and size that a PAX header gives; "" and -1 where it gives none.

    Go writes one for names beyond ASCII and for members of 8 GiB and more.
    """
    if size > _PAX_BYTES:
        raise _Damaged("the tar inside is damaged: an impossible header")
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
        raise _Damaged("the tar inside is damaged: a header that cannot be read") from None
    return path, member


def _read_shard(stream: IO[bytes]) -> _Shard:
    content = _Content(stream)
    sizes: dict[str, int] = {}
    damage, again = "", False
    try:
        for name, size in _members(content):
            if name in sizes:  # a cut download with the second try behind it
                raise _Damaged(f"it holds {name} twice, as after a broken connection")  # noqa: TRY301
            sizes[name] = size
            if _is_tsm(name) and not _has_tsm_ends(content, size):
                damage = f"{name} is not a whole TSM file; InfluxDB would restore nothing of it"
    except _Damaged as error:
        damage, again = str(error), True
    return _Shard(content.at, tuple(sizes.items()), damage, again)


def _is_tsm(name: str) -> bool:
    return name.endswith(".tsm")


def _has_tsm_ends(content: _Content, size: int) -> bool:
    if size < len(_TSM_START) + _TSM_END.size or content.take(len(_TSM_START)) != _TSM_START:
        return False
    content.skip(size - len(_TSM_START) - _TSM_END.size)
    (index_at,) = _TSM_END.unpack(content.take(_TSM_END.size))
    return len(_TSM_START) <= int(index_at) <= size - _TSM_END.size


def _read_small(stream: IO[bytes]) -> bytes:
    data = bytearray()
    while piece := stream.read(_CHUNK):  # a pipe may give less than was asked for
        data += piece
        if len(data) > _SMALL_BYTES:
            raise ValueError(f"it has more than {_SMALL_BYTES} bytes")
    return bytes(data)


def _read_catalogue(stream: IO[bytes]) -> Catalogue | _Damaged:
    try:
        return read_meta(_read_small(stream))
    except ValueError as error:
        return _Damaged(str(error))


def _read_manifest(name: str, stream: IO[bytes]) -> _Manifest:
    try:
        found = json.loads(_read_small(stream))
        meta, files = found["meta"], found["files"]
        return _Manifest(
            name=name,
            meta_file=str(meta["fileName"]),
            meta_bytes=int(meta["size"]),
            files=tuple(_listed(each) for each in files or ()),  # null in a dump without shards
            damage="",
        )
    except (ValueError, TypeError, KeyError) as error:
        return _Manifest(name, "", 0, (), f"the manifest cannot be read ({error})")


def _listed(entry: Any) -> _Listed:
    listed = _Listed(
        id=int(entry["shardID"]),
        database=str(entry["database"]),
        policy=str(entry["policy"]),
        file=str(entry["fileName"]),
        bytes=int(entry["size"]),
    )
    named = _NAME.fullmatch(listed.file)
    if not named or named["shard"] != str(listed.id):
        raise ValueError(f"{listed.file} is no file name for shard {listed.id}")
    return listed


@dataclass(frozen=True, slots=True)
class _Index:
    """Where the blocks of one .tsm file are, in its order."""

    name: str
    offsets: array[int]
    sizes: array[int]
    damage: str = ""
    lacks: int = 0  # how many bytes of the file's end would have been needed


def _read_indexes(content: _Content, keep: Mapping[str, int]) -> list[_Index]:
    """The index of each .tsm file; it stands at the end, so the last bytes are kept on the way."""
    return [
        _read_index(name, size, _read_tail(content, size, keep.get(name, _TAIL_BYTES)))
        for name, size in _members(content)
        if _is_tsm(name)
    ]


def _read_tail(content: _Content, size: int, keep: int) -> bytes:
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


def _read_blocks(content: _Content, indexes: Mapping[str, _Index]) -> list[str]:
    """A sentence for each .tsm file with blocks that do not fit their checksum."""
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
                f"{name}: {bad} of {len(index.sizes)} blocks do not fit their checksum; a "
                f"restore would take wrong values from them"
            )
    return told
