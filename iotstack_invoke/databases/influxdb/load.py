"""Loading an InfluxDB 1.x dump into an empty server, and verifying that everything arrived.

Exit code 0 of `influxd restore` proves nothing, and it returns before the server is done. The
proof: the sizes of the TSM files on the server's disk are those in the dump, shard by shard.
Shards are matched by database, policy and start, since a restore gives them new ids; the server's
own catalogue lists them. That needs no query, so no password.
"""

from __future__ import annotations

import posixpath
import shlex
import time

from ...core import processes
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostStep, StepContext
from ...hosts.base import ANY_EXIT, Command, Host, sh
from ...hosts.inspect import temporary_file
from .check import DumpReport
from .log import (
    Level,
    explain_metadata_refusal,
    judge_restore,
    read_restore_line,
    say_internal_left_out,
)
from .meta import Catalogue, Grant
from .read_dump import Dump
from .server import (
    Server,
    ask_influx,
    influx_words,
    merged_files,
    quoted,
    server_catalogue,
    tsm_files,
)
from .stays import Present

SETTLE_LIMIT_S = 300.0
"""Time limit for the server to take the shards in after `influxd restore`; 1.5 s were seen."""
PROVEN = "InfluxDB has all of the dump: "
"""The first words of the message about a verified load."""


@dataclass(frozen=True, slots=True)
class LoadInflux(HostStep):
    """Load a dump into a server, and verify it by the sizes of its files.

    Without `databases`, load all of it, once, into an empty server. Otherwise each of these
    replaces the existing database and gets its grants.
    """

    server: Server
    dump: Dump
    inside: str
    limit_s: float
    databases: tuple[str, ...] = ()

    def command(self, database: str = "") -> Command:
        """Return the load command."""
        chosen = ("-db", database) if database else ()
        words = ("influxd", "restore", "-portable", *chosen, self.inside)
        words = ("exec", self.server.container, *words)
        command = self.access.guarded_docker(*words, timeout_s=self.limit_s)
        return command.accepting(*ANY_EXIT)

    def commands(self) -> tuple[str, ...]:
        """Return the load commands as a user would type them."""
        lines = []
        for name in self.databases:
            drop = influx_words(self.server, self.access.docker, f"DROP DATABASE {quoted(name)}")
            lines += [str(drop), str(self.command(name))]
        return (*(lines or [str(self.command())]), "compare the sizes of all TSM files")

    def do(self, context: StepContext) -> None:
        """Load and verify; raises StepFailed with what is missing."""
        host = self.access.host(context)
        report = self.dump.report(context)
        if not self.databases:
            self._load(context, host, report)
        else:
            before = server_catalogue(host, self.server, self.access.as_root)
            for name in self.databases:
                ask_influx(host, self.server, self.access.docker, f"DROP DATABASE {quoted(name)}")
                self._load(context, host, report, name)
                self._grant(context, host, name, before, report.catalogue)
        self._prove(context, host, report)

    def _grant(
        self,
        context: StepContext,
        host: Host,
        name: str,
        before: Catalogue,
        dumped: Catalogue | None,
    ) -> None:
        """Give users their previous grants on a loaded database.

        For a database that did not exist before, use the dump's grants: dropping it removed them.
        """
        was_there = name in before.names
        users = before.users if was_there or dumped is None else dumped.users
        known = {each.name for each in before.users}
        for user in users:
            for grant in (grant for database, grant in user.grants if database == name):
                if grant is Grant.NOTHING:
                    continue
                text = f"GRANT {grant.name} ON {quoted(name)} TO {quoted(user.name)}"
                if user.name in known:
                    ask_influx(host, self.server, self.access.docker, text)
                else:
                    context.warn(
                        f"User {user.name} of the backup does not exist in InfluxDB here, and a "
                        f"restore of single databases adds no users. After creating it: {text}"
                    )

    def _load(
        self, context: StepContext, host: Host, report: DumpReport, database: str = ""
    ) -> None:
        shards = [each for each in report.shards if database in ("", each.database)]
        lines: list[str] = []

        def hear(stream: str, line: str) -> None:
            lines.append(line)
            context.log_output(stream, line)
            read = read_restore_line(line)
            if read.say and read.level is not Level.HARMLESS:
                context.status(read.say)

        outcome = host.run(self.command(database), hear)
        expected = frozenset(shard.id for shard in shards)
        verdict = judge_restore(lines, outcome.exit_code, expected)
        if verdict.metadata_refused:
            now = server_catalogue(host, self.server, self.access.as_root)
            asked = (database,) if database else ()
            cause = explain_metadata_refusal(report.catalogue, asked, now.names)
            if not cause.success:
                raise StepFailed(f"InfluxDB refused the dump: {cause.say}")
        elif verdict.problems:
            raise StepFailed(f"influxd restore failed: {' '.join(verdict.problems)}")
        for warning in verdict.warnings:
            context.warn(warning)
        if verdict.skipped_internal:
            context.status(say_internal_left_out(verdict.skipped_internal))

    def _prove(self, context: StepContext, host: Host, report: DumpReport) -> None:
        """Wait until every TSM file of the dump is on the server's disk, with the same size.

        InfluxDB may start to merge files within a second of a load, as at any time; its log lists
        the files that it merged.
        """
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while True:
            lacking = lacking_files(host, self.server, self.access.as_root, report, self.databases)
            merged = self._merged(host, lacking)
            missing = [each for each in lacking if each not in merged]
            if not missing:
                self._say_proven(context, report, merged)
                return
            if time.monotonic() > deadline:
                raise StepFailed(
                    "InfluxDB did not load all of the dump. Missing: "
                    f"{'; '.join(each.told for each in missing[:5])}. Its disk may be full; "
                    "check `docker logs`."
                )
            context.status(f"waiting for {len(missing)} shards to settle")
            processes.pause(0.3)

    def _merged(self, host: Host, lacking: list[Lacking]) -> list[Lacking]:
        """Return the shards that lack only files that the server merged."""
        if not any(each.may_be_merged for each in lacking):
            return []
        told = merged_files(host, self.server, self.access.docker)
        return [
            each
            for each in lacking
            if each.may_be_merged and all((each.id, name) in told for name in each.gone)
        ]

    def _say_proven(self, context: StepContext, report: DumpReport, merged: list[Lacking]) -> None:
        held = report.catalogue.names if report.catalogue else ()
        names = self.databases or held
        shards = [each for each in report.shards if each.database in names]
        size = sum(size for each in shards for _, size in each.tsm)
        since = sum(len(each.gone) for each in merged)
        context.status(
            f"{PROVEN}{', '.join(names) or 'no database'} ({len(shards)} shards, {size:,} bytes)"
            f"{f'; it has merged {since} of its files since' if since else ''}"
        )


@dataclass(frozen=True, slots=True)
class Lacking:
    """A shard of a dump whose TSM files are missing on the server's disk or have other sizes."""

    told: str
    id: int = 0
    """The server's shard id; 0 if the server has no such shard."""
    gone: tuple[str, ...] = ()
    """The files of the dump that are missing."""
    new: tuple[str, ...] = ()
    """The files that are on the disk and not in the dump."""
    same: bool = True
    """The other files have the same sizes."""

    @property
    def may_be_merged(self) -> bool:
        """Whether other files may be the merged result of the missing ones: they sort later."""
        return bool(self.same and self.gone and self.new) and max(self.gone) < max(self.new)


def lacking_files(
    host: Host,
    server: Server,
    as_root: tuple[str, ...],
    report: DumpReport,
    databases: tuple[str, ...] = (),
) -> list[Lacking]:
    """Return the shards of a dump whose files here differ from it in number or in size.

    Names do not count: a load gives new ones. `databases`: only theirs; all if empty. Raises
    StepFailed if the server's files or its catalogue cannot be read.
    """
    places = server_catalogue(host, server, as_root).places
    new_ids = {tuple(place): shard for shard, place in places.items()}
    found = tsm_files(host, server, as_root, at_work=True)
    lacking = []
    for shard in report.shards:
        if databases and shard.database not in databases:
            continue
        new_id = new_ids.get((shard.database, shard.policy, shard.start_ns))
        have = found.get(new_id, {}) if new_id is not None else {}
        want = dict(shard.tsm)
        if sorted(have.values()) != sorted(want.values()):
            sizes = f"{sorted(have.values())}, not {sorted(want.values())}"
            lacking.append(
                Lacking(
                    f"shard {shard.id} of {shard.database} has {sizes} bytes",
                    new_id or 0,
                    tuple(each for each in want if each not in have),
                    tuple(each for each in have if each not in want),
                    all(want[each] == size for each, size in have.items() if each in want),
                )
            )
    return lacking


@dataclass(frozen=True, slots=True)
class AddUsers(HostStep):
    """Give a stopped server the users of a dump, with their passwords and grants.

    `influxd restore` discards them. Their messages are appended to meta.db unchanged: protobuf
    merges repeated fields. Undone together with the data folder.
    """

    server: Server
    dump: Dump
    notes: str
    present: Present | None = None
    """The previous catalogue: users that are missing in the dump are kept."""
    stays: tuple[str, ...] = ()
    """The databases of the previous catalogue in which its users keep their grants."""

    def commands(self) -> tuple[str, ...]:
        """Return what is done."""
        return (f"append the users of the dump to {self.server.folder('meta')}/meta.db",)

    def do(self, context: StepContext) -> None:
        """Append them; the hashes travel in a file of mode 0600 and never in an argument."""
        host = self.access.host(context)
        catalogue = self.dump.report(context).catalogue
        users = catalogue.users if catalogue else ()
        if catalogue and self.present:
            users = self.present.users(catalogue, self.stays)
        if not users:
            return
        script = 'cat "$1" >> "$2" && sync "$2"'
        target = posixpath.join(self.server.folder("meta"), "meta.db")
        with temporary_file(host, self.notes, b"".join(each.record for each in users)):
            host.run(self.access.guarded_root(*sh(script, self.notes, target)))


@dataclass(frozen=True, slots=True)
class AddQueries(HostStep):
    """Create the continuous queries of a dump: `influxd restore` discards them."""

    server: Server
    dump: Dump
    databases: tuple[str, ...] = ()
    all_of_them: bool = False
    """Fail at the first query that InfluxDB refuses."""

    def commands(self) -> tuple[str, ...]:
        """Return what is done."""
        return (f"create the dump's continuous queries again in {self.server.container}",)

    def do(self, context: StepContext) -> None:
        """Create them; if InfluxDB refuses one, warn with the exact statement."""
        host = self.access.host(context)
        catalogue = self.dump.report(context).catalogue
        found = catalogue.continuous_queries if catalogue else ()
        for database, query in found:
            if self.databases and database not in self.databases:
                continue
            text = query.text
            try:
                ask_influx(host, self.server, self.access.docker, text)
            except StepFailed as error:
                if self.all_of_them:
                    drop = f"DROP CONTINUOUS QUERY {quoted(query.name)} ON {quoted(database)}"
                    raise StepFailed(
                        f"{error}. What it refers to may no longer exist: create it again, or "
                        f"run `{drop}` in InfluxDB, then reload again."
                    ) from error
                words = shlex.join(("influx", "-execute", text))
                context.warn(f"{error}. Run it in the container of InfluxDB: {words}")
