"""A dump of InfluxDB 1.x in a folder of a host: verified, compared with server and manifest."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from ...archives.scan import refuse_size
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostAccess, StepContext
from ...hosts.base import Command, Host
from ...hosts.local import CHUNK_BYTES
from .check import DumpCheck, DumpReport
from .dump import facts_of, members
from .meta import INTERNAL, Catalogue
from .server import Server, server_catalogue, tsm_files
from .shard import check_tsm_blocks

READ_FOLDER = ("tar", "--create", "--file=-")
READ_LIMIT_S = 24 * 3600.0


class Dump:
    """A dump in a folder of a host, read once: several steps use the report."""

    def __init__(self, access: HostAccess, folder: str) -> None:
        self.access = access
        self.folder = folder
        self._report: DumpReport | None = None

    def report(self, context: StepContext) -> DumpReport:
        """Return what it holds and its problems; raises StepFailed if it is missing."""
        if self._report is None:
            words = (*self.access.as_root, *READ_FOLDER, f"--directory={self.folder}", ".")
            host = self.access.host(context)
            with host.pipe(Command(words, timeout_s=READ_LIMIT_S)) as pipe:
                report = check_dump(pipe.stdout)
                while pipe.stdout.read(CHUNK_BYTES):  # tar pads its end
                    pass
                if pipe.finish():
                    raise StepFailed(f"Could not read the dump in {self.folder}.")
            self._report = report
        return self._report


def check_dump(stream: Any) -> DumpReport:
    """Return the report on a dump in a tar that is read once."""
    check = DumpCheck()
    for name, content in members(stream):
        check.add(name, content)
    return check.report()


@dataclass(frozen=True, slots=True)
class CheckDump:
    """Verify a dump before any data change: every file and, if requested, every block."""

    dump: Dump
    called: str
    """The name that messages use."""
    databases: tuple[str, ...] = ()
    """The databases that it must hold."""
    blocks: bool = True
    data: str = ""
    """Where InfluxDB will write the unpacked shards; set if disk space is to be checked there."""

    def commands(self) -> tuple[str, ...]:
        """Return what is checked."""
        what = "every file and block" if self.blocks else "every file"
        return (f"check {what} of '{self.dump.folder}'",)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if the dump is incomplete."""
        context.status("checking every shard")
        report = self.dump.report(context)
        problems = list(report.problems)
        held = report.catalogue.names if report.catalogue else ()
        absent = [] if problems else [name for name in self.databases if name not in held]
        if absent:
            raise StepFailed(
                f"The dump {self.called} does not contain {', '.join(absent)}. It contains: "
                f"{', '.join(held) or 'no database'}. Nothing was changed."
            )
        host = self.dump.access.host(context)
        if self.data and not problems:
            size_bytes = sum(each.bytes for each in report.shards)
            what = f"The dump {self.called}"
            refuse_size(context, host, what, size_bytes, self.data, for_all=True)
        for shard in report.shards if self.blocks and not problems else ():
            path = posixpath.join(self.dump.folder, shard.file)
            problems += _check_blocks(host, (*self.dump.access.as_root, "cat", path), shard.file)
        if problems:
            found = f"The dump {self.called} is damaged: {' '.join(problems)}"
            raise StepFailed(f"{found} Nothing was changed. Use another backup.", damage=found)


@dataclass(frozen=True, slots=True)
class CompareWithServer:
    """Check that a dump holds all that its server has: databases, users, queries, every shard."""

    dump: Dump
    server: Server
    """The server that was dumped; it is stopped, or no client writes to it."""

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return (f"compare the dump with the files of '{self.server.data}'",)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed with what the dump lacks."""
        host, as_root = self.dump.access.host(context), self.dump.access.as_root
        report = self.dump.report(context)
        there = server_catalogue(host, self.server, as_root)
        lacking = lacking_in(report.catalogue, there)
        held = frozenset(each.id for each in report.shards)
        lacking += lacking_shards(held, there, frozenset(tsm_files(host, self.server, as_root)))
        if lacking:
            raise StepFailed(
                f"The dump is incomplete. Missing from InfluxDB's files: {'; '.join(lacking[:5])}."
            )


@dataclass(frozen=True, slots=True)
class CompareWithManifest:
    """Check that a dump holds what its manifest lists: databases, shards with sizes, users."""

    dump: Dump
    told: Mapping[str, Any]
    """The facts of the manifest; empty for a backup without one."""

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return ("compare the dump with the manifest",) if self.told else ()

    def do(self, context: StepContext) -> None:
        """Raise StepFailed with the differences."""
        found = facts_of(self.dump.report(context))
        differing = [key for key in found if key in self.told and self.told[key] != found[key]]
        if differing:
            raise StepFailed(f"The dump differs from the manifest in {', '.join(differing)}.")


@dataclass(frozen=True, slots=True)
class CompareWithDump:
    """Check that a stopped server has the databases, users and queries of the loaded dump."""

    dump: Dump
    server: Server

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return (f"compare the catalogue of '{self.server.data}' with the dump's",)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed with what the server lacks."""
        host = self.dump.access.host(context)
        there = server_catalogue(host, self.server, self.dump.access.as_root)
        wanted = self.dump.report(context).catalogue
        lacking = lacking_in(there, wanted) if wanted else []
        if lacking:
            raise StepFailed(
                f"InfluxDB did not load everything. Missing: {'; '.join(lacking[:5])}."
            )


def lacking_in(held: Catalogue | None, wanted: Catalogue) -> list[str]:
    """Return the databases, users and continuous queries of one catalogue that another lacks."""
    if held is None:
        return ["its catalogue"]
    lacking = [f"database {each}" for each in wanted.names if each not in held.names]
    users = {(each.name, each.admin, each.grants) for each in held.users}
    lacking += [
        f"user {each.name}"
        for each in wanted.users
        if (each.name, each.admin, each.grants) not in users
    ]
    queries = {(database, query.name) for database, query in held.continuous_queries}
    lacking += [
        f"continuous query {query.name} of {database}"
        for database, query in wanted.continuous_queries
        if (database, query.name) not in queries
    ]
    return lacking


def lacking_shards(held: frozenset[int], there: Catalogue, on_disk: frozenset[int]) -> list[str]:
    """Return the shards with files (`on_disk`) that a server's catalogue has and a dump lacks.

    InfluxDB's own statistics and expired shards are not expected.
    """
    alive = {
        shard: database.name
        for database in there.databases
        for policy in database.policies
        for group in policy.groups
        for shard in group.shards
        if database.name != INTERNAL and not group.deleted_at_ns
    }
    return [
        f"shard {shard} of {database}"
        for shard, database in sorted(alive.items())
        if shard in on_disk and shard not in held
    ]


def _check_blocks(host: Host, words: tuple[str, ...], name: str) -> tuple[str, ...]:
    content: list[Any] = []

    def again() -> Any:
        opened = host.pipe(Command(words, timeout_s=3600))
        content.append(opened)
        return opened.__enter__().stdout

    try:
        return check_tsm_blocks(again, file=name).problems
    finally:
        for opened in content:
            opened.__exit__(None, None, None)
