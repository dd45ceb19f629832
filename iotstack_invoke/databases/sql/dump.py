"""The part of database servers that are dumped as SQL: dump, verify, pack.

A dump is verified while it is read, by its end marker and its rows. It waits compressed in an
unnamed temporary file, since a tar needs a member's size before its content; copied from there
into the part, it is verified a second time. Docker passes no signal into a container: a dump that
still runs there is found by its mark and ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
import time
from dataclasses import replace
from typing import IO, Any, cast

from ...archives.pack import TAR_END_BYTES, HashedFile, Messages, judge_tar, keeping_dates
from ...archives.passing import Passing
from ...archives.scan import Judge, shape_of
from ...backups.manifest import LEFT_OUT
from ...backups.names import split_set_name
from ...core import gzip_streams, processes
from ...core.dataclass import dataclass
from ...core.errors import IotstackError, StepFailed, ended
from ...engine.steps import LACKING, File, StepContext
from ...hosts.base import ANY_EXIT, Command, Host
from ...hosts.local import LocalHost, read_chunk
from .config import CONFIG, config_of
from .read_dump import SqlReport, in_memory_told
from .servers import ENGINES, ITS_ROW, NO_PROGRAM, NOT_LET_IN, WANTS_A_PERSON, SqlServer, run_in

READY_LIMIT_S = 180.0
READY_PAUSE_S = 0.5
NOT_RUNNING = "is not running"
"""Docker's message for a stopped container; it differs for one that is restarting."""
NO_SUCH = ("it has no program", "executable file not found")
"""Our message and Docker's; the exit code is the same while a container ends or restarts."""
MEMBER_MODE = 0o600
RETRY_WAIT_S = 2.0
MOST_NAMED = 5
SAYS_LEFT_OUT = "left out: "
"""The first words of a script's message about something that it does not dump."""
SAYS_ENDED = "ended: "
"""The same, about a dump of another run that it ended before its own."""
END_LIMIT_S = 20.0
KILLED_FROM = 128
"""From this exit code on, or below 0, a program was ended by a signal."""
_RUN = os.urandom(4).hex()
SAYS_EMPTY = "comes back empty: "
"""The same, about tables that a restart of their server empties."""
SAYS_MOVED = "comes back elsewhere: "
"""The same, about something whose data it dumps without their storage location."""


def mark_of(folder: str, run: str = _RUN) -> str:
    """Return the mark of all dumps of a run of a stack: its lock allows one run at a time."""
    return f"iotstack-{hashlib.sha256(folder.encode()).hexdigest()[:12]}-{run}"


@dataclass(frozen=True, slots=True)
class PackDumps:
    """Dump each server into one archive; then add the files that `tar` reads, if any."""

    output: File
    servers: tuple[SqlServer, ...]
    limit_s: float
    docker: tuple[str, ...] = ("docker",)
    tar: tuple[str, ...] = ()
    folder: str = ""
    """The path of the only dump in the archive; '' for several, whose paths start at its top."""
    tries: int = 1
    """The maximum number of attempts at a dump that may still succeed."""

    def commands(self) -> tuple[str, ...]:
        """Return the dump commands, and the tar, as a user would type them."""
        dumps = (run_in(self.docker, each, "dump").shown for each in self.servers)
        rest = (str(Command(self.tar)),) if self.tar else ()
        return (*(f"{each} >> '{self.output.partial}'" for each in (*dumps, *rest)),)

    def do(self, context: StepContext) -> None:
        """Write the archive under its partial name.

        A server that is starting is waited for. If one dump is incomplete, the others are still
        packed: the record names it as LACKING. Raises StepFailed if none is complete.
        """
        host = context.host(self.output.role)
        with host.create(self.output.partial) as target:
            hashed = HashedFile(target)
            with (
                # Compress the whole archive, though a dump in it may be packed: IOTstackBackup
                # unpacks with -z.
                gzip_streams.open_writer(cast("IO[bytes]", hashed)) as stream,
                tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                self._add_dumps(context, host, archive)
                files_bytes = self._add_files(context, host, archive) if self.tar else 0
        if self.tar:
            context.record(self.output, unpacked_bytes=files_bytes)
        context.record(self.output, size_bytes=hashed.size_bytes, sha256=hashed.digest.hexdigest())

    def end_left(self, context: StepContext) -> None:
        """End the dumps of this run that still run in their containers, if possible."""
        for server in self.servers:
            self._end(context.host(self.output.role), server)

    def _end(self, host: Host, server: SqlServer) -> None:
        mark = mark_of(self.output.root)
        with contextlib.suppress(IotstackError):  # the next backup ends them
            host.run(run_in(self.docker, server, "end", limit_s=END_LIMIT_S, mark=mark))

    def _add_dumps(self, context: StepContext, host: Host, archive: tarfile.TarFile) -> None:
        """Dump each server into the archive, and record the facts for the manifest."""
        told, failed = [], {}
        beside = isinstance(host, LocalHost)  # dumps of another machine wait on this one
        folder = os.path.dirname(self.output.partial) if beside else None
        for server in self.servers:
            with tempfile.TemporaryFile(dir=folder) as spool:
                try:
                    report, size = self._dump_again(context, host, server, spool)
                except StepFailed as error:
                    context.advance(0)  # raises Interrupted if that is why it failed
                    failed[server.container] = error
                    context.status(str(error))
                    continue
                self._add(archive, server, spool, report, size)
                self._add_config(context, host, archive, server)
                told.append(facts_of(server, report, size, self.output.root))
        if failed and not told:
            again = self.tries == 1 and any(each.again for each in failed.values())
            raise StepFailed(" ".join(map(str, failed.values())), again=again)
        context.record(self.output, servers=told)
        if failed:
            lacking = {name: str(why) for name, why in failed.items()}
            context.record(self.output, **{LACKING: lacking})

    def _dump_again(
        self, context: StepContext, host: Host, server: SqlServer, spool: IO[bytes]
    ) -> tuple[SqlReport, int]:
        """Dump one server, retrying if that may help; return what the dump holds and its size."""
        for attempt in range(self.tries):
            wait_for_server(context, host, server, self.docker)
            context.status(f"dumping {server.title}")
            try:
                return self._dump(context, host, server, spool)
            except StepFailed as error:
                context.advance(0)
                if not error.again or attempt + 1 == self.tries:
                    raise
                wait_s = RETRY_WAIT_S * 2**attempt
                context.status(f"{ended(error)} Trying again in {wait_s:g} s.")
                processes.pause(wait_s)
                spool.seek(0)
                spool.truncate()
        raise AssertionError("the last attempt returns")

    def _add(
        self,
        archive: tarfile.TarFile,
        server: SqlServer,
        spool: IO[bytes],
        report: SqlReport,
        size: int,
    ) -> None:
        """Copy a dump from its file into the archive; raises StepFailed if it changed."""
        engine = ENGINES[server.engine]
        spool.seek(0)
        member = f"{self.folder}/{engine.member}" if self.folder else server.member
        info = tarfile.TarInfo(f"./{member}")
        info.mode, info.mtime = MEMBER_MODE, int(time.time())
        again = engine.reader()
        content = gzip_streams.Content(spool)
        changed = f"Could not write all of the dump of {server.title}"
        try:
            if engine.packed:
                info.size = os.fstat(spool.fileno()).st_size
                archive.addfile(info, spool)
                spool.seek(0)
                for piece in content.pieces(size):
                    again.add(bytes(piece))
            else:
                info.size = size
                archive.addfile(info, cast("IO[bytes]", _Passing(content, again)))
            content.end()
        except gzip_streams.Damaged as error:
            raise StepFailed(f"{changed}: {error}.", again=True) from error
        if replace(again.report(), left_out=report.left_out) != report:
            raise StepFailed(f"{changed}.", again=True)

    def _add_config(
        self, context: StepContext, host: Host, archive: tarfile.TarFile, server: SqlServer
    ) -> None:
        """Put a server's own settings beside its dump, which is complete without them as well."""
        try:
            for name, text in config_of(host, server, self.docker):
                content = text.encode("utf-8", "surrogateescape")
                folder = os.path.dirname(server.member)
                info = tarfile.TarInfo(f"./{os.path.join(folder, CONFIG, name)}")
                info.mode, info.mtime, info.size = MEMBER_MODE, int(time.time()), len(content)
                archive.addfile(info, io.BytesIO(content))
        except StepFailed as error:
            context.warn(f"{ended(error)} Its dump is in the part, but not this.")

    def _dump(
        self, context: StepContext, host: Host, server: SqlServer, spool: IO[bytes]
    ) -> tuple[SqlReport, int]:
        """Write a dump, compressed, and return what it holds and its size."""
        said = Messages(context)
        reader = ENGINES[server.engine].reader()
        size = 0
        mark = mark_of(self.output.root)
        command = run_in(self.docker, server, "dump", limit_s=self.limit_s, mark=mark)
        code = -1
        try:
            with host.pipe(command, said) as pipe, gzip_streams.open_writer(spool) as packer:
                while chunk := read_chunk(pipe.stdout):
                    packer.write(chunk)
                    reader.add(chunk)
                    size += len(chunk)
                    context.advance(len(chunk))
                code = pipe.finish()
        finally:
            if not 0 <= code < KILLED_FROM and not processes.ending():
                self._end(host, server)
        for line in said.lines:
            if line.startswith(SAYS_ENDED):
                context.status(f"{server.title}: {line}")
        report = reader.report()
        last = next((line for line in reversed(said.lines) if line.strip()), "no message")
        if code < 0:
            last = f"it was stopped; the limit is {self.limit_s:g} s"
        if code == NOT_LET_IN:
            raise StepFailed(
                f"{last}. {server.title} has another password than in its environment: set the "
                "right one in docker-compose.yml or .env."
            )
        if code:
            raise StepFailed(
                f"The dump of {server.title} failed (exit {code}): {last}",
                again=code != WANTS_A_PERSON,
            )
        if report.problems:
            raise StepFailed(
                f"The dump of {server.title} is incomplete: {'; '.join(report.problems)}.",
                again=True,
            )
        left_out = [line for line in said.lines if line.startswith(SAYS_LEFT_OUT)]
        for line in left_out:
            context.warn(f"{server.title}: {line}")
        moved = [each for each in said.lines if each.startswith(SAYS_MOVED)]
        moved += [f"{SAYS_MOVED}{folders_told(report.apart)}"] if report.apart else []
        if report.in_memory:
            moved.append(
                f"{SAYS_EMPTY}{in_memory_told(report)}, which are in memory only "
                "(ENGINE=MEMORY): their rows are in the dump, but each restart of the server "
                "empties them, also the one at the end of a restore"
            )
        for line in moved:  # no data are lost by that
            context.status(f"{server.title}: {line}")
        told = tuple(line.partition(": ")[2] for line in (*left_out, *moved))
        return replace(report, left_out=told), size

    def _add_files(self, context: StepContext, host: Host, archive: tarfile.TarFile) -> int:
        """Append the members of GNU tar to ours: its end becomes that of the archive.

        Returns the number of its bytes.
        """
        said = Messages(context)
        out = cast("IO[bytes]", archive.fileobj)
        _, kind = split_set_name(os.path.basename(self.output.path)) or ("", "")
        passing = Passing(Judge(shape_of(kind)))
        tar = keeping_dates(host, self.tar, self.limit_s)
        with host.pipe(Command(tar, timeout_s=self.limit_s), said) as pipe:
            end, size = b"", 0
            while chunk := read_chunk(pipe.stdout):
                for piece in passing.take(chunk):
                    out.write(piece)
                    size += len(piece)
                end = (end + chunk)[-TAR_END_BYTES:]
                context.advance(len(chunk))
            out.write(passing.end())
            size += len(passing.end())
            judge_tar(pipe.finish(), said.lines, context)
        if end != bytes(TAR_END_BYTES):  # sudo that needs a password ends with 1, as tar may
            why = f": {said.lines[-1]}" if said.lines else "."
            raise StepFailed(f"tar did not finish its archive{why}", again=True)
        passing.warn(context)
        return size


def wait_for_server(
    context: StepContext,
    host: Host,
    server: SqlServer,
    docker: tuple[str, ...],
    limit_s: float = READY_LIMIT_S,
    settle_s: float = 0,
) -> None:
    """Wait until a server is ready; raises StepFailed if it is not in time.

    Raises at once if it is stopped, or has no programs of its engine. With `settle_s`, wait until
    it has accepted logins for that long: an image creates its databases with a temporary server
    that ends a moment later.
    """
    deadline = time.monotonic() + limit_s
    since = 0.0
    while True:
        told = host.run(run_in(docker, server, "ready", limit_s=60))
        if told.exit_code == 0 and settle_s:
            told = host.run(run_in(docker, server, "ask", "SELECT 1", limit_s=60))
        now = time.monotonic()
        since = (since or now) if told.exit_code == 0 else 0
        if since and now - since >= settle_s:
            return
        if NOT_RUNNING in told.last_line:
            words = (*docker, "logs", "--tail=5", server.container)
            said = host.run(Command(words, accept=ANY_EXIT))
            raise StepFailed(f"{server.title} is stopped. Its last output: {said.last_line}")
        if told.exit_code == NO_PROGRAM and any(each in told.last_line for each in NO_SUCH):
            raise StepFailed(
                f"Container {server.container} is not {ENGINES[server.engine].title}: "
                f"{told.last_line}. Check that {ITS_ROW}."
            )
        if now > deadline:
            raise StepFailed(f"{server.title} does not answer: {told.last_line}")
        context.status(f"waiting for {server.title}")
        processes.pause(READY_PAUSE_S)


def folders_told(tables: tuple[str, ...]) -> str:
    """Return what happens to the folders that tables of MariaDB have of their own."""
    more = len(tables) - MOST_NAMED
    names = ", ".join(tables[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return (
        f"the folders (DATA DIRECTORY) of {names}; their rows are in the dump, and are restored "
        "into the folder of their database"
    )


def facts_of(server: SqlServer, report: SqlReport, size_bytes: int, folder: str) -> dict[str, Any]:
    """Return the facts about a dump for the manifest; paths are relative to the stack."""
    databases: dict[str, dict[str, int]] = {name: {} for name in report.databases}
    for table, rows in report.rows.items():
        databases.setdefault(table.database, {})[table.name] = rows
    return {
        "container": server.container,
        "engine": server.engine,
        "version": report.version,
        "data": os.path.relpath(server.data, folder) if server.data else "",
        "inside": server.inside,
        "sql_bytes": size_bytes,
        "rows": databases,
        "users": list(report.users),
        **({"timescaledb": list(report.timescale)} if report.timescale else {}),
        **({"apart": list(report.apart)} if report.apart else {}),
        **({LEFT_OUT: list(report.left_out)} if report.left_out else {}),
    }


class _Passing:
    """A stream that passes the bytes read from it to a reader as well."""

    def __init__(self, source: gzip_streams.Content, reader: Any) -> None:
        self._source = source
        self._reader = reader

    def read(self, size: int) -> bytes:
        data = self._source.take(size)
        self._reader.add(data)
        return data
