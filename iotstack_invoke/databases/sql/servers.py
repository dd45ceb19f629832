"""The database servers that are dumped as SQL: where their data are, how they are queried.

The scripts that run inside their containers are mariadb.sh and postgres.sh: POSIX sh, since an
image may hold nothing else. They take the password from the container's own environment; we never
see it.
"""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...core.dataclass import dataclass
from ...hosts.base import ANY_EXIT, Command, Host
from ...services.known import ServiceTable
from ...stack.compose import InspectedContainer
from ...stack.inside import path_on_host

if TYPE_CHECKING:
    from .read_dump import SqlReader, SqlReport, SqlTable

ASK_LIMIT_S = 600.0
WHERE_LIMIT_S = 30.0
NOT_LET_IN = 77
"""The exit code of mariadb.sh if no password of the environment is right."""
NO_PROGRAM = 127
"""That of a container without the programs of its engine, or without a shell."""
ITS_ROW = "its [[services]] row in hosts.toml has the right database"

WANTS_A_PERSON = 78
"""The exit code of a script whose last line says what the user must fix before a dump."""


@dataclass(frozen=True)
class Engine:
    """A kind of database server that is dumped as SQL."""

    name: str
    """Also the name of its part, and of the container whose dump is at the top of the part."""
    title: str
    member: str
    """The name of a dump in the part."""
    homes: tuple[tuple[str, str], ...]
    """The default data folder: a mapped folder, and the path below it."""
    where: str
    """The query for its data folder; further folders of its data follow, separated by tabs."""
    first_start: tuple[str, ...]
    """Settings for its first start: it creates no database by itself."""
    logs: tuple[tuple[str, str], ...] = ()
    """For data inside its container: another folder there that it writes to all the time."""
    config: tuple[str, ...] = ()
    """Its settings files that are among its data, and in no dump."""
    fixed: tuple[str, ...] = ()
    """Its logs among its data, for du(1) to leave out: they do not count for a dump's size."""

    @cached_property
    def script(self) -> str:
        """The script that runs in the container; its first argument selects the action."""
        path = os.path.join(os.path.dirname(__file__), f"{self.name}.sh")
        with open(path, encoding="utf-8") as stream:
            return stream.read()

    def reader(self) -> SqlReader:
        """Return a reader that takes a dump in pieces and reports whether it is complete."""
        from .read_dump import READERS

        return READERS[self.name]()

    @property
    def packed(self) -> bool:
        """Whether the dump itself is compressed, and not the tar around it."""
        return self.member.endswith(".gz")


MARIADB = Engine(
    name="mariadb",
    title="MariaDB",
    member="backup.sql",
    homes=(("/config", "databases"), ("/var/lib/mysql", "")),
    where="SELECT @@datadir",
    first_start=("MYSQL_DATABASE=", "MARIADB_DATABASE=", "MYSQL_USER=", "MARIADB_USER="),
    logs=(("/config/databases", "/config/log/mysql"),),  # binary logs, of linuxserver's image
    # Not ibdata1: it is small, or holds the rows of all tables (innodb_file_per_table = OFF).
    fixed=(
        *("ib_logfile[0-9]", "#innodb_redo", "undo00[0-9]", "undo_00[0-9]", "ibtmp1"),
        *("*-bin.[0-9]*", "binlog.[0-9]*", "aria_log.[0-9]*"),
    ),
)
POSTGRES = Engine(
    name="postgres",
    title="PostgreSQL",
    member="postgres_backup.sql.gz",
    homes=(("/var/lib/postgresql/data", ""), ("/var/lib/postgresql", "")),
    where="SELECT concat_ws(chr(9), current_setting('data_directory'), (SELECT string_agg("
    "pg_tablespace_location(oid), chr(9)) FROM pg_tablespace "
    r"WHERE pg_tablespace_location(oid) ~ '^/[^\t\n\r]*$'))",
    first_start=("POSTGRES_DB=postgres",),
    config=("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"),
    fixed=("pg_wal", "pg_xlog"),
)
ENGINES: Mapping[str, Engine] = MappingProxyType({e.name: e for e in (MARIADB, POSTGRES)})


@dataclass(frozen=True, slots=True)
class SqlServer:
    """A container whose databases are dumped as SQL."""

    container: str
    engine: str
    data: str = ""
    """Its data folder on the host; '' if no known folder is mapped."""
    inside: str = ""
    """The same folder inside the container."""
    apart: tuple[str, ...] = ()
    """Folders on the host that hold more of its data: PostgreSQL's tablespaces."""

    @property
    def title(self) -> str:
        """The name in messages."""
        return f"{ENGINES[self.engine].title} in container {self.container}"

    @property
    def logs_inside(self) -> str:
        """Its logs folder inside the container, if separate from its data; '' if it has none."""
        return dict(ENGINES[self.engine].logs).get(self.inside, "")

    @property
    def logs(self) -> str:
        """The same folder on the host."""
        if not (self.data and self.logs_inside):
            return ""
        below = os.path.relpath(self.logs_inside, self.inside)
        return os.path.normpath(os.path.join(self.data, below))

    @property
    def member(self) -> str:
        """The name of its dump in the part of its engine."""
        engine = ENGINES[self.engine]
        if self.container == engine.name:
            return engine.member
        return f"{self.container}/{engine.member}"


def server_of(found: InspectedContainer, engine: str) -> SqlServer:
    """Return a container as a database server, with the location of its data."""
    mapped = {each.inside.rstrip("/"): each.on_host for each in found.mounts}
    name = found.container.name
    for mount, below in ENGINES[engine].homes:
        if mount in mapped:
            data, inside = (f"{each}/{below}".rstrip("/") for each in (mapped[mount], mount))
            return SqlServer(name, engine, data, inside)
    return SqlServer(name, engine)


def servers_in(found: Iterable[InspectedContainer], table: ServiceTable) -> tuple[SqlServer, ...]:
    """Return the containers that the table lists as dumped as SQL, whether they run or not."""
    services = ((each, table.service_of(each.container)) for each in found)
    return tuple(
        server_of(each, service.dump)
        for each, service in services
        if service and service.dump in ENGINES
    )


def located(
    host: Host, server: SqlServer, found: InspectedContainer, docker: tuple[str, ...] = ("docker",)
) -> SqlServer:
    """Return a server with the data folder that it reports itself, mapped by its mounts.

    The image's default is used for a server that does not run, or does not answer.
    """
    if not found.container.running:
        return server
    question = ENGINES[server.engine].where
    told = host.run(run_in(docker, server, "ask", question, limit_s=WHERE_LIMIT_S))
    inside, *others = told.out.strip().split("\t")
    if told.exit_code or not inside.startswith("/") or "\n" in told.out.strip():
        return server
    apart = (path_on_host(found.mounts, each) for each in others)
    return replace(placed(server, found, inside), apart=tuple(sorted(filter(None, apart))))


def placed(server: SqlServer, found: InspectedContainer, inside: str) -> SqlServer:
    """Return a server with its data in a folder of its container, wherever that is mapped to."""
    inside = posixpath.normpath(inside)
    data = path_on_host(found.mounts, inside)
    return replace(server, data=data, inside=inside if data else "")


def located_in(
    host: Host,
    found: Iterable[InspectedContainer],
    table: ServiceTable,
    docker: tuple[str, ...] = ("docker",),
) -> tuple[SqlServer, ...]:
    """Return the same as servers_in, with the data folders that running servers report."""
    known = {each.container.name: each for each in found}
    servers = servers_in(known.values(), table)
    return tuple(located(host, each, known[each.container], docker) for each in servers)


def rows_told(kind: str, reports: Collection[SqlReport]) -> str:
    """Return a summary of the dumps of a part: `MariaDB: 3 servers, 41 tables, 12,345 rows`."""
    counts = {
        "server": len(reports),
        "table": sum(len(each.rows) for each in reports),
        "row": sum(sum(each.rows.values()) for each in reports),
    }
    title = ENGINES[kind].title if kind in ENGINES else kind.capitalize()
    told = (f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
    return f"{title}: {', '.join(told)}"


def run_in(
    docker: tuple[str, ...],
    server: SqlServer,
    *words: str,
    limit_s: float = ASK_LIMIT_S,
    mark: str = "",
) -> Command:
    """Return the command that dumps, loads or queries in a container; any exit code is accepted.

    `mark` identifies a dump that may outlive this process, or the dump that is to be ended.
    """
    called = (*docker, "exec", server.container)
    marked = (mark,) if mark else ()
    return Command(
        (*called, "sh", "-c", ENGINES[server.engine].script, "sh", *words, *marked),
        accept=ANY_EXIT,
        timeout_s=limit_s,
        label=shlex.join((*called, f"{server.engine}.sh", *words)),
    )


def count_words(
    tables: Mapping[int, SqlTable], engine: str, versioned: Collection[SqlTable] = ()
) -> str:
    """Return the query for the rows of tables of one database, by our numbers.

    The answer is `number|rows`, in any order. For the tables of `versioned`, old rows count as
    well.
    """
    only = "ONLY " if engine == "postgres" else ""  # rows of inheriting tables are counted there
    ever = dict.fromkeys(versioned, " FOR SYSTEM_TIME ALL")
    return " UNION ALL ".join(
        f"SELECT CONCAT({number}, '|', COUNT(*)) FROM {only}{_full_name(each, engine)}"  # noqa: S608 - quoted by the dump
        f"{ever.get(each, '')}"
        for number, each in tables.items()
    )


def _full_name(table: SqlTable, engine: str) -> str:
    """Return a table as its server names it; those of a dump are quoted already."""
    if engine == "postgres" or not table.database:
        return table.name
    database = table.database.replace("`", "``")
    return f"`{database}`.{table.name}"
