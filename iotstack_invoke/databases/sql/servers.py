"""The database servers that are saved as SQL: where their data lie, how they are asked.

What runs inside their containers is in mariadb.sh and postgres.sh: POSIX sh, since an image may
hold nothing else. It takes the password from the container's own environment; we never see it.
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
"""The exit code of mariadb.sh where no password of the environment is right."""
NO_PROGRAM = 127
"""That of a container without the programs of its engine, or even a shell."""
ITS_ROW = "its [[services]] row in hosts.toml has the right database"

WANTS_A_PERSON = 78
"""The exit code of a script whose last line says what a person must mend before a dump."""


@dataclass(frozen=True)
class Engine:
    """A kind of database server that is dumped as SQL."""

    name: str
    """Also that of its part, and of the container whose dump lies at the top of the part."""
    title: str
    member: str
    """What a dump is called in the part."""
    homes: tuple[tuple[str, str], ...]
    """Where its data lie, unless it says otherwise: a folder that is mapped, and what below it."""
    where: str
    """The question for its folder of data; behind tabs come those that hold more of them."""
    first_start: tuple[str, ...]
    """Settings for its first start: it makes no database by itself."""
    logs: tuple[tuple[str, str], ...] = ()
    """For data inside of its container: another folder there that it writes into all the time."""
    config: tuple[str, ...] = ()
    """Its files of settings that lie among its data, and are in no dump."""
    fixed: tuple[str, ...] = ()
    """Its logs among its data, for du(1) to leave out: they tell nothing of a dump's size."""

    @cached_property
    def script(self) -> str:
        """What is run in the container; its first word says what is done."""
        path = os.path.join(os.path.dirname(__file__), f"{self.name}.sh")
        with open(path, encoding="utf-8") as stream:
            return stream.read()

    def reader(self) -> SqlReader:
        """Return what takes a dump of it in pieces, and tells whether it is whole."""
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
    """A container whose databases are saved as SQL."""

    container: str
    engine: str
    data: str = ""
    """Its folder of data on the host; '' where none is mapped that we know."""
    inside: str = ""
    """The same inside of the container."""
    apart: tuple[str, ...] = ()
    """Folders on the host that hold more of its data: PostgreSQL's tablespaces."""

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{ENGINES[self.engine].title} in container {self.container}"

    @property
    def logs_inside(self) -> str:
        """Inside of the container, where it keeps logs apart from its data; '' for nowhere."""
        return dict(ENGINES[self.engine].logs).get(self.inside, "")

    @property
    def logs(self) -> str:
        """The same on the host."""
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
    """Return a container as a database server, with where its data lie."""
    mapped = {each.inside.rstrip("/"): each.on_host for each in found.mounts}
    name = found.container.name
    for mount, below in ENGINES[engine].homes:
        if mount in mapped:
            data, inside = (f"{each}/{below}".rstrip("/") for each in (mapped[mount], mount))
            return SqlServer(name, engine, data, inside)
    return SqlServer(name, engine)


def servers_in(found: Iterable[InspectedContainer], table: ServiceTable) -> tuple[SqlServer, ...]:
    """Return the containers that the table says are dumped as SQL, whether they run or not."""
    services = ((each, table.service_of(each.container)) for each in found)
    return tuple(
        server_of(each, service.dump)
        for each, service in services
        if service and service.dump in ENGINES
    )


def located(
    host: Host, server: SqlServer, found: InspectedContainer, docker: tuple[str, ...] = ("docker",)
) -> SqlServer:
    """Return a server with its data where it says itself that they lie, mapped by its mounts.

    One that does not run, or does not tell, is taken for one as its image has it.
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
    """Return the same as servers_in, with their data where those that run say that they lie."""
    known = {each.container.name: each for each in found}
    servers = servers_in(known.values(), table)
    return tuple(located(host, each, known[each.container], docker) for each in servers)


def rows_told(kind: str, reports: Collection[SqlReport]) -> str:
    """Return what the dumps of a part hold: `MariaDB: 3 servers, 41 tables, 12,345 rows`."""
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
    """Return the command that dumps, loads or asks in a container; any exit code is accepted.

    `mark`: what a dump is found by that does not end with us, or that is to be ended.
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
    """Return the question for the rows of tables of one database, by numbers of ours.

    It is answered as `number|rows`, in any order. Of those of `versioned` also what was before.
    """
    only = "ONLY " if engine == "postgres" else ""  # what it inherits has rows of its own
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
