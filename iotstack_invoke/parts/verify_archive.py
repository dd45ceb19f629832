"""Archives read as streams to their last byte: what is in them, and what is wrong with them.

Nothing is unpacked to a disk. Python's tarfile takes a damaged header for the end of the archive,
so every end is looked at here. Not for: what may be unpacked (members.py asks GNU tar itself).
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
"""What tarfile raises of headers that are damaged; of sparse files it believes every number."""
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
    """One member of an archive; `digest` is b"" where it was not asked for or is no file's."""

    name: str
    kind: str
    mode: str
    owner: str
    size_bytes: int
    link: str = ""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one archive is that was read to its end; without problems it is whole."""

    size_bytes: int
    sha256: str
    problems: tuple[str, ...]
    dump: DumpReport | None = None
    sql: Mapping[str, SqlReport] = field(default_factory=dict)
    """What each dump of SQL holds, by its member."""
    unpacked_bytes: int = 0
    """How long the tar is, of a general part."""
    influx2: Influx2Report | None = None


class _Member(tarfile.TarInfo):
    """A header that must be one: tarfile itself ends at the first that is damaged or missing."""

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

    `packed`: it must be compressed, or must not; None where its first bytes tell: the name of a
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
    """Return each header with the content of a file; after the last, the end was looked at.

    `judge` looks at each, as before a restore.
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
    """What a member holds; where the archive ends before it, that is damage to whoever reads."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        try:
            return self._source.read(size)
        except _TAR_ERRORS as error:
            raise Damaged(f"its tar is damaged: {error}") from None


def _letter(member: tarfile.TarInfo) -> str:
    """Return the kind of a member as tar lists it; of one that tar does not know, what it says."""
    return _LETTERS.get(member.type) or member.type.decode("latin-1")


def _look_at_end(rest: IO[bytes]) -> None:
    """Raise Damaged where the first block of zeros is not followed by another, or by more."""
    zeros = 0
    while piece := rest.read(CHUNK_BYTES):
        if piece.count(0) != len(piece):
            raise Damaged(BEHIND_END)
        zeros += len(piece)
    if zeros < _BLOCK:
        raise Damaged(NO_END)


def read_whole(storage: Storage, path: str, kind: str, included: Collection[str] = ()) -> Reading:
    """Return what an archive of one kind of part is, read to its last byte.

    Each member is judged as before a restore; `included` is what the manifest says of a general
    part. Of InfluxDB's dump each file is checked, and each block of its shards; of InfluxDB 2's
    each file that its manifest names; of SQL each dump to its end marker. Raises StepFailed where
    it could not be read: that says nothing of the archive.
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
        except Exception as error:  # noqa: BLE001 - whatever a reader stumbles over is damage
            problems = [f"reading it ended with {error!r}."]
        hashed.drain()  # a line that broke is told at the end of the stream: it is no damage
    return Reading(
        hashed.size_bytes, hashed.sha256, tuple(problems), dump, reports, unpacked_bytes, influx2
    )


def read_influx2(stream: Any, judge: Judge | None = None) -> Influx2Report:
    """Return what a part of InfluxDB 2 is that is read once; raises Damaged."""
    check = Influx2Check()
    for member, content in _members(stream, packed=False, judge=judge):
        if content is not None:
            check.add(member.name, content)
    return check.report()


def read_sql(stream: Any, engine: str, judge: Judge | None = None) -> dict[str, SqlReport]:
    """Return what each dump of SQL in a part is, by its member; raises Damaged.

    A PostgreSQL part is compressed as well, as IOTstackBackup's, unless it is old. Of a recipe's
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
    """A stream whose first bytes were looked at."""

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
    """Return the archive opened a second time where one can seek in it, else None."""
    try:
        seekable = isinstance(stream, io.BufferedReader) and stream.seekable()
    except OSError:
        seekable = False
    return opened.enter_context(storage.read(path)) if seekable else None


def read_dump(stream: Any) -> DumpReport:
    """Return what a dump in a plain tar is that is read once; its blocks are not looked at.

    Raises Damaged.
    """
    check = DumpCheck()
    for member, content in _members(stream, packed=False):
        if content:
            check.add(member.name, content)
    return check.report()


def _read_dump(stream: Any, again: IO[bytes] | None, judge: Judge) -> tuple[DumpReport, list[str]]:
    """Return the report on a dump and all that is wrong with it, blocks included.

    To check its blocks a shard is read thrice: from `again`, or from a copy in a temporary file.
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
    whole = {each.file for each in report.shards}  # of others it is said what they lack
    wrong = [each for name, told in blocks.items() if name in whole for each in told]
    return report, [*report.problems, *wrong]


@contextmanager
def _copied(content: IO[bytes]) -> Iterator[IO[bytes]]:
    """Return a copy of a stream in a temporary file; raises StepFailed where it has no place."""
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
    """Some bytes of a file, from the first; one slice of a file is read at a time."""

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
