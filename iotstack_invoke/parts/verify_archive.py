"""Archives read as streams to their last byte: what is in them, and their problems.

Nothing is unpacked to a disk. Python's tarfile takes a damaged header for the end of the archive,
so this module checks every end. It does not judge what may be unpacked (scan.py asks GNU tar).
"""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import field
from typing import IO, TYPE_CHECKING, Any, Final, cast

from ..archives.scan import BEHIND_END, NO_END, NOTHING, Judge, shape_of
from ..backups.bundles import RECIPES
from ..core.dataclass import dataclass
from ..core.errors import IotstackError, StepFailed
from ..core.gzip_streams import Content, Damaged
from ..databases.influxdb.check import DumpCheck, DumpReport
from ..databases.influxdb.shard import check_tsm_blocks
from ..databases.influxdb2.check import Influx2Check, Influx2Report
from ..databases.sql.read_dump import SqlReport
from ..databases.sql.servers import ENGINES, MARIADB
from ..hosts.base import Storage
from ..hosts.hashing import HashedStream
from ..hosts.local import CHUNK_BYTES, words_of
from .bundle import DUMP

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK: Final = 512
_KINDS: Final = {
    tarfile.DIRTYPE: ("folder", stat.S_IFDIR),
    tarfile.SYMTYPE: ("symlink", stat.S_IFLNK),
    tarfile.LNKTYPE: ("hard link", stat.S_IFREG),
    tarfile.FIFOTYPE: ("pipe", stat.S_IFIFO),
    tarfile.CHRTYPE: ("character device", stat.S_IFCHR),
    tarfile.BLKTYPE: ("block device", stat.S_IFBLK),
}
_TAR_ERRORS: Final = (tarfile.TarError, ValueError, LookupError, ArithmeticError)
"""What tarfile raises for damaged headers; in sparse files it trusts every number."""
_LETTERS: Final = {
    tarfile.REGTYPE: "-",
    tarfile.AREGTYPE: "-",
    tarfile.GNUTYPE_SPARSE: "-",
    tarfile.CONTTYPE: "C",
    tarfile.LNKTYPE: "h",
    tarfile.SYMTYPE: "l",
    tarfile.CHRTYPE: "c",
    tarfile.BLKTYPE: "b",
    tarfile.DIRTYPE: "d",
    tarfile.FIFOTYPE: "p",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive; `digest` is b"" if not requested, or if it is not a file."""

    name: str
    kind: str
    mode: str
    owner: str
    size_bytes: int
    link: str = ""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Reading:
    """The contents of one archive that was read to its end; without problems it is complete."""

    size_bytes: int
    sha256: str
    problems: tuple[str, ...]
    dump: DumpReport | None = None
    sql: Mapping[str, SqlReport] = field(default_factory=dict)
    """The contents of each SQL dump, by its member."""
    unpacked_bytes: int = 0
    """The length of the tar, for a general part."""
    influx2: Influx2Report | None = None


class _Member(tarfile.TarInfo):
    """A header that must be valid: tarfile itself ends at the first damaged or missing one."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is missing: {error}") from None


def read_members(
    stream: Any, *, packed: bool | None = None, digests: bool = False
) -> Iterator[Member]:
    """Return the members of an archive in its order; raises Damaged, at its end at the latest.

    `packed`: it must be compressed, or must not; None if its first bytes decide: the name of a
    `.sql.gz.tar` does not. `digests`: with the first half of the SHA-256 of each file, so the
    files are read as well.
    """
    for member, content in _members(stream, packed=packed):
        kind, bits = _KINDS.get(member.type, ("file", stat.S_IFREG))
        yield Member(
            name=member.name,
            kind=kind,
            mode=stat.filemode(bits | member.mode),
            owner=f"{member.uid}:{member.gid}",
            size_bytes=member.size,
            link=member.linkname,
            digest=_digest(content) if digests and content else b"",
        )


def _digest(content: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.digest()[:16]


def _members(
    stream: Any, *, packed: bool | None = None, judge: Judge | None = None
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Return each header with the content of a file; after the last, the end has been checked.

    `judge` checks each, as before a restore.
    """
    if packed is None:
        stream = _Begun(stream)
        packed = stream.is_gzip
    source = Content(stream) if packed else None
    try:
        with tarfile.open(
            fileobj=cast("IO[bytes]", source or stream),
            mode="r|",
            bufsize=CHUNK_BYTES,
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            while (member := archive.next()) is not None:
                if judge:
                    judge.judge(_letter(member), member.name, member.size, member.linkname)
                content = archive.extractfile(member) if member.isreg() else None
                yield member, cast("IO[bytes]", _Inside(content)) if content else None
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps 100 MB
            _look_at_end(cast("IO[bytes]", archive.fileobj))
    except _TAR_ERRORS as error:
        raise Damaged(f"its tar is damaged: {error}") from None
    if source:
        source.end()


class _Inside:
    """The content of a member; if the archive ends before it, its reader gets Damaged."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        try:
            return self._source.read(size)
        except _TAR_ERRORS as error:
            raise Damaged(f"its tar is damaged: {error}") from None


def _letter(member: tarfile.TarInfo) -> str:
    """Return the kind of a member as tar lists it; for an unknown kind, its own letter."""
    return _LETTERS.get(member.type) or member.type.decode("latin-1")


def _look_at_end(rest: IO[bytes]) -> None:
    """Raise Damaged if the first block of zeros is not followed by another, or by more."""
    zeros = 0
    while piece := rest.read(CHUNK_BYTES):
        if piece.count(0) != len(piece):
            raise Damaged(BEHIND_END)
        zeros += len(piece)
    if zeros < _BLOCK:
        raise Damaged(NO_END)


def read_whole(storage: Storage, path: str, kind: str, included: Collection[str] = ()) -> Reading:
    """Return the contents of an archive of one kind of part, read to its last byte.

    Each member is checked as before a restore; `included` is the manifest's list for a general
    part. Of InfluxDB's dump each file is checked, and each block of its shards; of InfluxDB 2's
    each file that its manifest names; of SQL each dump to its end marker. Raises StepFailed if it
    could not be read: that says nothing about the archive.
    """
    problems: list[str] = []
    dump = None
    influx2 = None
    reports: dict[str, SqlReport] = {}
    judge = Judge(shape_of(kind, included))
    unpacked_bytes = 0
    with storage.read(path) as stream:
        hashed = HashedStream(stream)
        try:
            if kind == "influx":
                with ExitStack() as opened:
                    again = _read_again(storage, path, stream, opened)
                    dump, problems = _read_dump(hashed, again, judge)
            elif kind == "influxdb2":
                influx2 = read_influx2(hashed, judge)
                problems = list(influx2.problems)
            elif kind in ENGINES or kind in RECIPES:
                reports = read_sql(hashed, kind, judge)
                problems = [f"{n}: {each}." for n, r in reports.items() for each in r.problems]
                problems += [] if reports or kind in RECIPES else ["it has no dump."]
            else:
                content = Content(cast("IO[bytes]", hashed))
                for _ in _members(content, packed=False, judge=judge):
                    pass
                content.end()
                unpacked_bytes = content.at
            problems += [f"a restore refuses {each}." for each in judge.contents.refusals]
            problems += [f"{NOTHING}."] if judge.is_empty and not problems else []
        except Damaged as damage:
            problems = [f"{damage}."]
        except (IotstackError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - any error of a reader means damage
            problems = [f"reading it ended with {error!r}."]
        hashed.drain()  # a lost connection is reported at the end of the stream: it is no damage
    return Reading(
        hashed.size_bytes, hashed.sha256, tuple(problems), dump, reports, unpacked_bytes, influx2
    )


def read_influx2(stream: Any, judge: Judge | None = None) -> Influx2Report:
    """Return the contents of a part of InfluxDB 2, read once; raises Damaged."""
    check = Influx2Check()
    for member, content in _members(stream, packed=False, judge=judge):
        if content is not None:
            check.add(member.name, content)
    return check.report()


def read_sql(stream: Any, engine: str, judge: Judge | None = None) -> dict[str, SqlReport]:
    """Return the contents of each SQL dump in a part, by its member; raises Damaged.

    A PostgreSQL part is compressed as well, as IOTstackBackup's, unless it is old. In a recipe's
    part one member is a dump, whatever other files are called.
    """
    dump = DUMP if engine in RECIPES else ""
    engine = MARIADB.name if engine in RECIPES else engine
    reports = {}
    for member, content in _members(stream, judge=judge):
        name = member.name.removeprefix("./")
        if content is None or not name.endswith(ENGINES[engine].member) or (dump and name != dump):
            continue
        reader = ENGINES[engine].reader()
        inner: Any = Content(content) if ENGINES[engine].packed else content
        while chunk := inner.read(CHUNK_BYTES):
            reader.add(chunk)
        if isinstance(inner, Content):
            inner.end()
        reports[member.name] = reader.report()
    return reports


class _Begun:
    """A stream whose first bytes have already been read."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._first = source.read(2)
        self.is_gzip = self._first == b"\x1f\x8b"

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        first, self._first = self._first[:size], self._first[size:]
        more = self._source.read(size - len(first)) if len(first) < size else b""
        return bytes(first + more)


def _read_again(
    storage: Storage, path: str, stream: IO[bytes], opened: ExitStack
) -> IO[bytes] | None:
    """Return the archive opened a second time if it is seekable, else None."""
    try:
        seekable = isinstance(stream, io.BufferedReader) and stream.seekable()
    except OSError:
        seekable = False
    return opened.enter_context(storage.read(path)) if seekable else None


def read_dump(stream: Any) -> DumpReport:
    """Return the contents of a dump in a plain tar, read once; its blocks are not checked.

    Raises Damaged.
    """
    check = DumpCheck()
    for member, content in _members(stream, packed=False):
        if content:
            check.add(member.name, content)
    return check.report()


def _read_dump(stream: Any, again: IO[bytes] | None, judge: Judge) -> tuple[DumpReport, list[str]]:
    """Return the report on a dump and all its problems, blocks included.

    To check its blocks a shard is read three times: from `again`, or from a temporary copy.
    """
    check = DumpCheck()
    blocks: dict[str, tuple[str, ...]] = {}
    for member, content in _members(stream, packed=False, judge=judge):
        name = member.name.rpartition("/")[2]
        if content is None:
            continue
        if not name.endswith(".tar.gz"):
            check.add(name, content)
            continue
        with ExitStack() as copies:
            if again is None:
                file, start = copies.enter_context(_copied(content)), 0
            else:
                file, start = again, member.offset_data

            def opened(
                file: IO[bytes] = file, start: int = start, size: int = member.size
            ) -> IO[bytes]:
                return cast("IO[bytes]", _Slice(file, start, size))

            check.add(name, opened())
            blocks[name] = check_tsm_blocks(opened, file=name).problems
    report = check.report()
    whole = {each.file for each in report.shards}  # the report lists what the others lack
    wrong = [each for name, told in blocks.items() if name in whole for each in told]
    return report, [*report.problems, *wrong]


@contextmanager
def _copied(content: IO[bytes]) -> Iterator[IO[bytes]]:
    """Return a copy of a stream in a temporary file; raises StepFailed if the disk is full."""
    with _failing_here():
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    try:
        while chunk := content.read(CHUNK_BYTES):
            with _failing_here():
                file.write(chunk)
        with _failing_here():
            file.flush()
        yield file
    finally:
        with suppress(OSError):  # what was not written is tried again
            file.close()


@contextmanager
def _failing_here() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepFailed(
            "A shard of InfluxDB is checked in a temporary file, which cannot be written: "
            f"{words_of(error)}. Free some space in /tmp, or set TMPDIR to another folder."
        ) from error


class _Slice(io.RawIOBase):
    """The first bytes of a file; one slice of a file is read at a time."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._left = size
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        data = self._file.read(min(len(view), self._left))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)
