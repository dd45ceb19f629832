"""Loading a dump of SQL into a temporary server without clients, and counting its rows.

The server is a container of the same image, environment and command, on no network, with an empty
folder instead of its data: the image initialises it as at a first start.
"""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, islice

from ...archives.scan import refuse_size
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import CommandStep, HostAccess, HostStep, StepContext
from ...hosts.base import Command, Host, sh
from ...hosts.inspect import free_bytes, stat_on, temporary_file
from ...hosts.json_answers import read_json
from ...hosts.local import read_chunk
from ...stack.isolated import OUR_LABEL, remove_ours
from ...stack.stop_start import STOP_LIMIT_S
from ..inventory import STAYS
from .dump import wait_for_server
from .read_dump import SqlReport, SqlTable, in_memory_told
from .servers import ENGINES, NOT_LET_IN, SqlServer, count_words, run_in

SQL_PROVEN = "The whole dump is in "
"""The first words of the message about a verified load."""
SYSTEM = ("mariadb", "mysql")
SQL_ALONE = "iotstack-sql-alone"
"""The container that a dump is loaded into."""
DUMPS_INSIDE = "/iotstack-dumps"
INSPECT_FORM = '["{{.Image}}", "{{.Config.User}}", {{json .Config.Env}}, {{json .Config.Cmd}}]'
SETTLE_S = 2.0
FIRST_START_LIMIT_S = 900.0
"""An image initialises a new server, and on an SD card that takes minutes."""
READ_LIMIT_S = 24 * 3600.0
TABLES_AT_ONCE = 100
_COUNT = re.compile(r"^(\d+)\|(\d+)\s*$", re.MULTILINE)
_SQL_ERROR = re.compile(r"(?:psql:\S+ )?(?:ERROR|FATAL|PANIC|error: )")
NO_TABLESPACES = r"""
/ FROM stdin;$/,/^\\\.$/b
1,/^\\connect /{/^[A-Z ]+ TABLESPACE /d}
/^ALTER DATABASE .* SET TABLESPACE /d
s/^(CREATE DATABASE .*) TABLESPACE = ("([^"]|"")+"|[^ ;]+)/\1/
/^SET default_tablespace = /d
"""
"""For sed: turns a dump by pg_dumpall into one by pg_dumpall --no-tablespaces; no row changes."""
# The image created these itself at its first start; an older psql does not know \restrict.
_EXPECTED = re.compile(r'role "[^"]*" already exists|invalid command \\(un)?restrict')


class SqlDump:
    """A dump in a file of a host, read once: several steps use the report."""

    def __init__(self, access: HostAccess, path: str, server: SqlServer) -> None:
        self.access = access
        self.path = path
        self.server = server
        self._report: SqlReport | None = None

    def report(self, context: StepContext) -> SqlReport:
        """Return what it holds and its problems; raises StepFailed if it is missing."""
        if self._report is None:
            host, engine = self.access.host(context), self.server.engine
            self._report = read_dump(host, self.path, engine, self.access.as_root)
        return self._report


def read_dump(host: Host, path: str, engine: str, as_root: tuple[str, ...]) -> SqlReport:
    """Return what a dump in a file holds; raises StepFailed if it cannot be read."""
    reader = ENGINES[engine].reader()
    with host.pipe(Command((*as_root, "cat", "--", path), timeout_s=READ_LIMIT_S)) as pipe:
        while chunk := read_chunk(pipe.stdout):
            reader.add(chunk)
        if pipe.finish():
            raise StepFailed(f"Could not read the dump {path}.")
    return reader.report()


@dataclass(frozen=True, slots=True)
class ReadSql:
    """Verify a dump, reading it to its end, before any data change."""

    dump: SqlDump

    def commands(self) -> tuple[str, ...]:
        """Return what is read."""
        return (f"read '{self.dump.path}' to its end",)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if the dump is incomplete."""
        problems = self.dump.report(context).problems
        if problems:
            found = f"The dump of {self.dump.server.title} is damaged: {'; '.join(problems)}."
            raise StepFailed(f"{found} Nothing was changed. Use another backup.", damage=found)


UNPACKED_BYTES = 'most=$1; shift; gzip --decompress --stdout -- "$@" | head -c "$most" | wc -c'


@dataclass(frozen=True, slots=True)
class UnpackSql(HostStep):
    """Verify each dump of a folder to its end before any data change; unpack packed ones."""

    folder: str
    engine: str
    may_lack: bool = False
    """The folder may be without dumps."""

    def commands(self) -> tuple[str, ...]:
        """Return what is done."""
        packed = (str(self._unpack(("…",))),) if ENGINES[self.engine].packed else ()
        return (*packed, f"read each dump of '{self.folder}' to its end")

    def _unpack(self, paths: tuple[str, ...]) -> Command:
        words = ("gzip", "--decompress", "--", *paths)
        return self.access.guarded_root(*words, timeout_s=READ_LIMIT_S)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if a dump is incomplete, or if there are no dumps."""
        host = self.access.host(context)
        engine = ENGINES[self.engine]
        dumps = staged_dumps(host, self.folder, self.engine, self.access.as_root)
        if not dumps and not self.may_lack:
            raise StepFailed(f"The {engine.title} part has no dump. Nothing was changed.")
        context.status(f"reading {len(dumps)} dumps of {engine.title}")
        if engine.packed and dumps:
            packed = tuple(f"{path}.gz" for path in dumps.values())
            self._refuse_size(context, packed)
            host.run(self._unpack(packed))
        for container, path in dumps.items():
            dump = SqlDump(self.access, path, SqlServer(container, self.engine))
            ReadSql(dump).do(context)
            self._without_tablespaces(context, dump)

    def _refuse_size(self, context: StepContext, packed: tuple[str, ...]) -> None:
        """Raise StepFailed if they need more than the free space; unpacks them to count it."""
        host = self.access.host(context)
        free = free_bytes(host, self.folder) or 0
        words = sh(UNPACKED_BYTES, str(free + 1), *packed)
        counted = int(
            host.run(Command((*self.access.as_root, *words), timeout_s=READ_LIMIT_S)).out
        )
        what = f"The dump of {ENGINES[self.engine].title}"
        refuse_size(context, host, what, counted, self.folder, at_least=counted > free)

    def _without_tablespaces(self, context: StepContext, dump: SqlDump) -> None:
        """Remove the tablespaces from a dump: we must not fill their folders."""
        names = dump.report(context).apart
        if self.engine != "postgres" or not names:
            return
        words = ("env", "LC_ALL=C", "sed", "-E", "--in-place", NO_TABLESPACES, dump.path)
        command = self.access.guarded_root(*words, timeout_s=READ_LIMIT_S)
        self.access.host(context).run(command)
        context.warn(
            f"The dump of {dump.server.title} uses tablespaces ({', '.join(names)}), which are "
            "not restored: their tables are restored into the default tablespace."
        )


def staged_dumps(host: Host, folder: str, engine: str, as_root: tuple[str, ...]) -> dict[str, str]:
    """Return the dumps in a folder, by the name of their container; packed or not."""
    plain = ENGINES[engine].member.removesuffix(".gz")
    words = ("find", folder, "-mindepth", "1", "-maxdepth", "2", "-type", "f")
    told = stat_on(host, (*words, "-printf", "%P\\n"), as_root, 600)
    found = {}
    for name in sorted(told.splitlines()):
        above, _, last = name.removesuffix(".gz").rpartition("/")
        if last == plain:
            found[above or engine] = f"{folder}/{name.removesuffix('.gz')}"
    return found


@dataclass(frozen=True, slots=True)
class RunSqlIsolated(HostStep):
    """Run a server of a container's image on other data, unreachable for clients.

    Its environment, passwords included, is passed in a file of mode 0600 that is removed at once.
    Undo removes container and file.
    """

    journaled_as = "RunSqlAlone"

    container: str
    """The container whose image, environment, command and mounts it has."""
    alone: str
    data: str
    inside: str
    dumps: str
    """A folder that is mounted read-only as /iotstack-dumps."""
    environment: str
    settings: tuple[str, ...] = ()
    """Environment variables that differ from the container's."""
    image: str = ""
    """The image to run if the container does not exist."""
    logs: str = ""
    """A folder inside that it must not share with that container: both write there."""

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command(self.image or f"image-of-{self.container}", "", ())),)

    def _command(self, image: str, user: str, words: tuple[str, ...]) -> Command:
        run = (
            *("run", "--detach", "--name", self.alone, "--label", OUR_LABEL),
            *("--network", "none"),
            *(() if self.image else ("--volumes-from", self.container)),
            *("--volume", f"{self.data}:{self.inside}"),
            *(("--volume", self.logs) if self.logs else ()),
            *("--volume", f"{self.dumps}:{DUMPS_INSIDE}:ro"),
            *(("--user", user) if user else ()),
            *("--env-file", self.environment),
            *(word for each in self.settings for word in ("--env", each)),
            image,
            *words,
        )
        return self.access.guarded_docker(*run, timeout_s=STOP_LIMIT_S)

    def do(self, context: StepContext) -> None:
        """Start it."""
        host = self.access.host(context)
        self.undo(host)
        if self.image:
            names = ("MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD", "POSTGRES_PASSWORD")
            password = secrets.token_urlsafe()
            image, user, words = self.image, "", tuple[str, ...]()
            settings = [f"{name}={password}" for name in names]
        else:
            form = ("inspect", "--type", "container", "--format", INSPECT_FORM)
            told = host.run(Command((*self.access.docker, *form, self.container))).out
            asked = read_json(told, f"`docker inspect` on {host.name}").items(4)
            image, user = asked[0].text(), asked[1].text()
            settings, words = [*asked[2].texts()], asked[3].texts()
        lines = [each for each in settings if "\n" not in each]
        text = "".join(f"{each}\n" for each in lines)
        with temporary_file(host, self.environment, text.encode("utf-8", "surrogateescape")):
            host.run(self._command(image, user, words), context.log_output)

    def undo(self, host: Host) -> None:
        """Remove it, whether it runs or not, if this tool created it."""
        host.remove([self.environment])
        remove_ours(host, self.access, self.alone)


@dataclass(frozen=True, slots=True)
class CheckMount(CommandStep):
    """Check that a new container finds its data where they are loaded."""

    server: SqlServer

    @property
    def command(self) -> Command:
        """The command that lists its mounts."""
        form = ("--type", "container", "--format", "{{json .Mounts}}")
        return Command((*self.access.docker, "inspect", *form, self.server.container))

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if it maps another folder, or none."""
        host = self.access.host(context)
        told = read_json(host.run(self.command).out, f"`docker inspect` on {host.name}")
        for each in told.items():
            inside, source = each["Destination"].text().rstrip("/"), each["Source"].text("")
            if self.server.inside == inside or self.server.inside.startswith(f"{inside}/"):
                found = posixpath.normpath(source + self.server.inside[len(inside) :])
                if self._is_same(host, found):
                    return
        raise StepFailed(
            f"Container {self.server.container} does not map {self.server.data} to "
            f"{self.server.inside}, as in the backup. Start it once, so that its mounts are "
            "known, then restore again."
        )

    def _is_same(self, host: Host, found: str) -> bool:
        """Return whether a path is the data folder, following links."""
        if found == self.server.data:
            return True
        told = host.run(Command(("realpath", "-m", "-z", "--", found, self.server.data)))
        return len(set(told.out.rstrip("\0").split("\0"))) == 1


@dataclass(frozen=True, slots=True)
class WaitForSql(HostStep):
    """Wait until a server answers, and warn if it refuses its container's root.

    A new server is initialised once it has accepted root for a while.
    """

    server: SqlServer
    is_new: bool = False

    def commands(self) -> tuple[str, ...]:
        """Return the query."""
        return (run_in(self.access.docker, self.server, "ready").shown,)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if it does not answer in time."""
        host = self.access.host(context)
        settle_s = SETTLE_S if self.is_new else 0
        wait_for_server(
            context, host, self.server, self.access.docker, FIRST_START_LIMIT_S, settle_s
        )
        if (
            host.run(run_in(self.access.docker, self.server, "ask", "SELECT 1")).exit_code
            == NOT_LET_IN
        ):
            context.warn(
                f"{self.server.title} has the passwords of the backup, and its root password "
                "differs from docker-compose.yml or .env. Set the right one there before the "
                "next backup."
            )


@dataclass(frozen=True, slots=True)
class LoadSql(HostStep):
    """Load a dump into an isolated server, and count the rows of each table."""

    alone: SqlServer
    dump: SqlDump
    below: str
    """The folder that the server sees as /iotstack-dumps."""
    limit_s: float
    into: dict[str, SqlReport] | None = None
    """Receives the verified contents, by the container of the dump."""
    beside: SqlDump | None = None
    """A second dump to load: of what the target has and the first dump lacks."""

    def _command(self, *words: str) -> Command:
        load = run_in(self.access.docker, self.alone, "load", *words, limit_s=self.limit_s)
        return replace(load, argv=self.access.guarded(*load.argv).argv)

    @property
    def _dumps(self) -> tuple[SqlDump, ...]:
        return (self.dump, self.beside) if self.beside else (self.dump,)

    def _inside(self, dump: SqlDump) -> str:
        return posixpath.join(DUMPS_INSIDE, posixpath.relpath(dump.path, self.below))

    def _loads(self, context: StepContext) -> Iterator[Command]:
        """Yield the commands: MariaDB loads all and counts in one session."""
        if self.alone.engine == "postgres":
            yield from (self._command(self._inside(dump)) for dump in self._dumps)
            return
        words = ["named" if self.dump.report(context).databases else "unnamed"]
        for dump in self._dumps:
            ever, numbered = dump.report(context).versioned, self._numbered(context, dump)
            questions = (count_words(some, "mariadb", ever) for some in numbered)
            words += [self._inside(dump), *questions]
        yield self._command(*words)

    def _numbered(self, context: StepContext, dump: SqlDump) -> Iterator[dict[int, SqlTable]]:
        """Yield the tables with the numbers by which rows are counted; unique over both dumps.

        What is loaded after MariaDB's users is added to the rows of these.
        """
        report = dump.report(context)
        if dump is self.dump:
            return batched(report.rows)
        tables = (each for each in report.rows if (self.alone.engine, each.database) != SYSTEM)
        return batched(tables, len(self.dump.report(context).rows))

    def commands(self) -> tuple[str, ...]:
        """Return the load command, and the comparison."""
        inside = (self._inside(dump) for dump in self._dumps)
        return (self._command(*inside).shown, "count the rows of each table")

    def do(self, context: StepContext) -> None:
        """Load and verify; raises StepFailed with what is missing."""
        host, title = self.access.host(context), ENGINES[self.alone.engine].title
        report = self.dump.report(context)
        self._refuse_version(host, report)
        context.status(f"loading {self.dump.server.title}")
        problems: list[str] = []

        def hear(stream: str, line: str) -> None:
            context.log_output(stream, line)
            if stream == "err" and _SQL_ERROR.match(line) and not _EXPECTED.search(line):
                problems.append(line.strip())

        counted = ""
        for command in self._loads(context):
            told = host.run(command, hear)
            if told.exit_code or problems:
                first = problems[0] if problems else told.last_line
                raise StepFailed(
                    f"{title} did not load the dump of container {self.dump.server.container} "
                    f"(exit {told.exit_code}): {first}"
                )
            counted += told.out
        for dump in self._dumps:
            if self.alone.engine == "postgres":
                counted += self._count(context, host, dump)
            self._prove(context, dump, counted)

    def _refuse_version(self, host: Host, report: SqlReport) -> None:
        """Raise StepFailed if PostgreSQL has another major version than the dump."""
        if self.alone.engine != "postgres" or not report.version:
            return
        here = self._ask(host, "SHOW server_version").strip()
        if major_of(report.version) != major_of(here):
            raise StepFailed(version_refusal(self.dump.server, report.version, here))

    def _count(self, context: StepContext, host: Host, dump: SqlDump) -> str:
        """Return the answer to each row count, database by database."""
        return "".join(
            self._ask(
                host, count_words(some, self.alone.engine), next(iter(some.values())).database
            )
            for some in self._numbered(context, dump)
        )

    def _prove(self, context: StepContext, dump: SqlDump, counted: str) -> None:
        report = dump.report(context)
        numbered = self._numbered(context, dump)
        tables = {number: table for some in numbered for number, table in some.items()}
        found = {int(found[1]): int(found[2]) for found in _COUNT.finditer(counted)}
        answers = {number: rows for number, rows in found.items() if number in tables}
        if answers.keys() != tables.keys():
            raise StepFailed(
                f"{self.dump.server.title} counted the rows of {len(answers)} tables, not "
                f"{len(tables)}."
            )
        lacking = [
            f"{table} has {answers[number]:,} rows, not {report.rows[table]:,}"
            for number, table in tables.items()
            if answers[number] != report.rows[table]
        ]
        if lacking:
            raise StepFailed(
                f"{self.dump.server.title} did not load all of its dump: {'; '.join(lacking[:5])}."
            )
        if self.into is not None:
            self.into[self.dump.server.container] = report
        if dump is self.dump:
            names, begin = ", ".join(report.databases) or "one database", SQL_PROVEN
        else:
            names, begin = ", ".join(dict.fromkeys(e.database for e in tables.values())), STAYS
        context.status(
            f"{begin}{self.dump.server.title}: {names or 'users'} ({len(tables)} tables, "
            f"{sum(answers.values()):,} rows)"
        )

        if report.in_memory:
            told = (
                f"{self.dump.server.title} keeps these tables in memory (ENGINE=MEMORY), and "
                f"loses their rows when it restarts: {in_memory_told(report)}. The rows are in "
                "the dump; have their program write them again, or load them by hand."
            )
            if self.into is None:
                context.warn(told)
            else:  # a rehearsal, after which no server is started
                context.status(told)

    def _ask(self, host: Host, question: str, database: str = "") -> str:
        words = (question, database) if database else (question,)
        told = host.run(run_in(self.access.docker, self.alone, "ask", *words))
        if told.exit_code:
            raise StepFailed(f"{self.alone.title} does not answer: {told.last_line}")
        return told.out


def major_of(version: str) -> str:
    """Return the major version of PostgreSQL: from 10 on its first number."""
    first, _, rest = version.partition(".")
    return first if len(first) > 1 else f"{first}.{rest.partition('.')[0]}"


def version_refusal(server: SqlServer, dumped: str, here: str) -> str:
    """Return why a dump is not loaded into a server of another major version, and what to do."""
    old = major_of(dumped)
    return (
        f"The dump of container {server.container} is of PostgreSQL {old}, and its image here is "
        f"of version {major_of(here)}. Use image postgres:{old} in docker-compose.yml, restore, "
        "then upgrade: https://www.postgresql.org/docs/current/upgrading.html"
    )


def timescale_refusal(server: SqlServer) -> str:
    """Return why a dump with TimescaleDB in it is not loaded, and how to do it by hand."""
    return (
        f"The dump of container {server.container} uses the extension TimescaleDB, whose tables "
        "must be loaded between timescaledb_pre_restore() and timescaledb_post_restore(): this "
        "is not supported. Nothing was changed. By hand, into the same version of the extension: "
        "https://www.tigerdata.com/docs/deploy/self-hosted/backup-and-restore/logical-backup; "
        "its dump is in the postgres part. Restore the other services one by one: --only NAME."
    )


def batched(tables: Iterable[SqlTable], start: int = 0) -> Iterator[dict[int, SqlTable]]:
    """Return tables by number, at most a hundred of one database at once.

    The numbers continue from batch to batch; the tables of a database are adjacent.
    """
    ordered = enumerate(sorted(tables, key=lambda each: each.database), start)
    for _, mine in groupby(ordered, lambda each: each[1].database):
        while some := dict(islice(mine, TABLES_AT_ONCE)):
            yield some
