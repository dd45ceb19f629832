"""Loading an InfluxDB 1.x dump into an empty server, and proving that it is all there.

Exit code 0 of `influxd restore` proves nothing either, and it returns before the server is done.
What proves it: the sizes of the TSM files on the server's disk are those in the dump, shard by
shard. Shards are matched by database, policy and start, since a restore gives them new ids; the
server's own catalogue tells which. No query, so no password, is needed for that.
"""

from __future__ import annotations

import io
import json
import posixpath
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import StepFailed
from ..hosts import CHUNK_BYTES
from ..steps import Command, Host, Scene
from .influx import BACKUP_INSIDE, facts_of, members, wait_for_ping
from .influx_check import DumpCheck, DumpReport
from .influx_log import (
    Level,
    explain_metadata_refusal,
    judge_restore,
    read_restore_line,
    say_internal_left_out,
)
from .influx_meta import INTERNAL, Catalogue, Grant, read_meta_db
from .influx_shard import check_tsm_blocks
from .stack import STOP_LIMIT_S, guarded

SETTLE_LIMIT_S = 300.0
"""How long a server may take the shards in after `influxd restore` ended; 1.5 s were seen."""
DATA_INSIDE = "/var/lib/influxdb"
PROVEN = "InfluxDB has all of the dump: "
"""With this begins what is said when a load is proven."""
ALONE_SETTINGS = ("INFLUXDB_HTTP_AUTH_ENABLED=false", "INFLUXDB_MONITOR_STORE_ENABLED=false")
KEPT_SETTINGS = "INFLUXDB_DATA_"
"""What of a container's environment says how data are stored; the rest may be a password."""
INSPECT_FORM = '["{{.Image}}", "{{.Config.User}}", {{json .Config.Env}}]'
READ_FOLDER = ("tar", "--create", "--file=-")
READ_LIMIT_S = 24 * 3600.0
QUERIES_FILE = "continuous-queries.influxql"
"""IOTstackBackup puts this beside the dump; the catalogue holds the same."""


@dataclass(frozen=True, slots=True)
class Server:
    """The InfluxDB container that takes a dump in."""

    container: str
    data: str
    """Its folder on the host that is /var/lib/influxdb inside."""


ALONE = "iotstack-influxdb-alone"
"""The container that takes a dump out of data, or loads it, where no client reaches it."""


@dataclass(frozen=True, slots=True)
class RunAlone:
    """Run an InfluxDB on the data folder of a container, where no client reaches it.

    A client that creates its database while a dump is loaded makes InfluxDB refuse all of it.
    So it is loaded by a second container of the same image: without published ports, on no
    network of the stack, asking for no password. Undone: removed.
    """

    host_role: str
    container: str
    alone: str
    data: str
    dumps: str
    docker: tuple[str, ...]
    guard: str
    image: str = ""
    """What to run where there is no such container; its settings are the image's own then."""

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command(self.image or "image-of-" + self.container, "", ())),)

    def _command(self, image: str, user: str, settings: tuple[str, ...]) -> Command:
        words = (
            *("run", "--detach", "--name", self.alone, "--network", "bridge"),
            *(() if self.image else ("--volumes-from", self.container)),
            *("--volume", f"{self.data}:{DATA_INSIDE}"),
            *("--volume", f"{self.dumps}:{BACKUP_INSIDE}"),
            *(("--user", user) if user else ()),
            *(word for each in (*settings, *ALONE_SETTINGS) for word in ("--env", each)),
            image,
        )
        return guarded(self.guard, (*self.docker, *words), STOP_LIMIT_S)

    def do(self, scene: Scene) -> None:
        """Start it from the image and the settings for data of the container."""
        host = scene.host(self.host_role)
        self.undo(host)
        if self.image:
            host.run(self._command(self.image, "", ()), scene.hear)
            return
        words = (*self.docker, "inspect", "--type", "container", "--format", INSPECT_FORM)
        image, user, settings = json.loads(host.run(Command((*words, self.container))).out)
        kept = tuple(each for each in settings or () if each.startswith(KEPT_SETTINGS))
        host.run(self._command(image, user, kept), scene.hear)

    def undo(self, host: Host) -> None:
        """Remove it, whether it runs or not."""
        words = (*self.docker, "rm", "--force", self.alone)
        command = guarded(self.guard, words, STOP_LIMIT_S)
        host.run(Command(command.words, frozenset({0, 1}), command.limit_s))


@dataclass(frozen=True, slots=True)
class EndAlone:
    """Let the InfluxDB that ran alone put its data away, and remove its container."""

    host_role: str
    alone: str
    docker: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return the commands."""
        return tuple(map(str, self._commands))

    @property
    def _commands(self) -> tuple[Command, ...]:
        stop = (*self.docker, "stop", "--time", "60", self.alone)
        remove = (*self.docker, "rm", self.alone)
        return tuple(guarded(self.guard, words, STOP_LIMIT_S) for words in (stop, remove))

    def do(self, scene: Scene) -> None:
        """Stop and remove it."""
        for command in self._commands:
            scene.host(self.host_role).run(command)


@dataclass(frozen=True, slots=True)
class CopyFolder:
    """Copy a folder of a stopped server to a new one beside it. Undone: remove the copy."""

    host_role: str
    source: str
    target: str
    as_root: tuple[str, ...]
    guard: str
    limit_s: float

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),)

    @property
    def _command(self) -> Command:
        words = ("cp", "-a", "--reflink=auto", "-T", "--", self.source, self.target)
        return guarded(self.guard, (*self.as_root, *words), self.limit_s)

    def do(self, scene: Scene) -> None:
        """Copy it; where the file system can, as a clone."""
        host = scene.host(self.host_role)
        self.undo(host)
        host.run(self._command, scene.hear)

    def undo(self, host: Host) -> None:
        """Remove it."""
        host.run(guarded(self.guard, (*self.as_root, "rm", "-rf", "--", self.target)))


class Dump:
    """A dump in a folder of a host, read whole once: several steps ask what it holds."""

    def __init__(self, host_role: str, folder: str, as_root: tuple[str, ...]) -> None:
        self.host_role = host_role
        self.folder = folder
        self.as_root = as_root
        self._report: DumpReport | None = None

    def report(self, scene: Scene) -> DumpReport:
        """Return what it holds and what is wrong with it; raises StepFailed if it is not there."""
        if self._report is None:
            words = (*self.as_root, *READ_FOLDER, f"--directory={self.folder}", ".")
            with scene.host(self.host_role).pipe(Command(words, limit_s=READ_LIMIT_S)) as pipe:
                report = check_dump(pipe.stdout)
                while pipe.stdout.read(CHUNK_BYTES):  # tar pads its end
                    pass
                if pipe.finish():
                    raise StepFailed(f"The dump in {self.folder} cannot be read.")
            self._report = report
        return self._report


def check_dump(stream: Any) -> DumpReport:
    """Return the report on a dump in a tar that is read once."""
    check = DumpCheck()
    for name, content in members(stream):
        if name != QUERIES_FILE:
            check.add(name, content)
    return check.report()


@dataclass(frozen=True, slots=True)
class CheckDump:
    """Check a dump completely before anything is touched: every file and, if told so, block."""

    dump: Dump
    called: str
    """What a person knows it as."""
    databases: tuple[str, ...] = ()
    """Those that it must hold."""
    blocks: bool = True

    def commands(self) -> tuple[str, ...]:
        """Return what is checked."""
        what = "every file and block" if self.blocks else "every file"
        return (f"check {what} of '{self.dump.folder}'",)

    def do(self, scene: Scene) -> None:
        """Raise StepFailed where the dump is not whole."""
        scene.say("checking every shard")
        report = self.dump.report(scene)
        problems = list(report.problems)
        held = report.catalogue.names if report.catalogue else ()
        absent = [] if problems else [name for name in self.databases if name not in held]
        if absent:
            raise StepFailed(
                f"The dump {self.called} does not hold {', '.join(absent)}. It holds: "
                f"{', '.join(held) or 'no database'}. Nothing was changed."
            )
        host = scene.host(self.dump.host_role)
        for shard in report.shards if self.blocks and not problems else ():
            path = posixpath.join(self.dump.folder, shard.file)
            problems += _check_blocks(host, (*self.dump.as_root, "cat", path), shard.file)
        if problems:
            raise StepFailed(
                f"The dump {self.called} is damaged: {' '.join(problems)} Nothing was "
                "changed. Take another backup."
            )


@dataclass(frozen=True, slots=True)
class CompareWithServer:
    """See that a dump holds all that its server has: databases, users, queries, every shard."""

    dump: Dump
    server: Server
    """The one that it was made of; it is stopped, or nobody writes to it."""

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return (f"compare the dump with the files of '{self.server.data}'",)

    def do(self, scene: Scene) -> None:
        """Raise StepFailed with what the dump lacks."""
        host, as_root = scene.host(self.dump.host_role), self.dump.as_root
        report = self.dump.report(scene)
        there = server_catalogue(host, self.server, as_root)
        lacking = lacking_in(report.catalogue, there)
        held = frozenset(each.id for each in report.shards)
        lacking += lacking_shards(held, there, frozenset(_tsm_sizes(host, self.server, as_root)))
        if lacking:
            raise StepFailed(
                f"The dump does not hold all of InfluxDB: it lacks {'; '.join(lacking[:5])}."
            )


@dataclass(frozen=True, slots=True)
class CompareWithManifest:
    """See that a dump holds what its manifest says: databases, shards with their sizes, users."""

    dump: Dump
    told: Mapping[str, Any]
    """The facts of the manifest; none for a backup without one."""

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return ("compare the dump with the manifest",) if self.told else ()

    def do(self, scene: Scene) -> None:
        """Raise StepFailed with what differs."""
        found = facts_of(self.dump.report(scene))
        differing = [key for key in found if key in self.told and self.told[key] != found[key]]
        if differing:
            raise StepFailed(
                "The dump is not the one that the manifest describes: they differ in "
                f"{', '.join(differing)}."
            )


@dataclass(frozen=True, slots=True)
class CompareWithDump:
    """See that a stopped server has the databases, users and queries of the dump it was given."""

    dump: Dump
    server: Server

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return (f"compare the catalogue of '{self.server.data}' with the dump's",)

    def do(self, scene: Scene) -> None:
        """Raise StepFailed with what the server lacks."""
        host = scene.host(self.dump.host_role)
        there = server_catalogue(host, self.server, self.dump.as_root)
        wanted = self.dump.report(scene).catalogue
        lacking = lacking_in(there, wanted) if wanted else []
        if lacking:
            raise StepFailed(f"InfluxDB did not take all: it lacks {'; '.join(lacking[:5])}.")


def lacking_in(held: Catalogue | None, wanted: Catalogue) -> list[str]:
    """Return which databases, users and continuous queries one catalogue has and another not."""
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
    """Return the shards with files (`on_disk`) that a server's catalogue has and a dump has not.

    Those of InfluxDB's own statistics, and those that it let expire, are not wanted.
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
        opened = host.pipe(Command(words, limit_s=3600))
        content.append(opened)
        return opened.__enter__().stdout

    try:
        return check_tsm_blocks(again, file=name).problems
    finally:
        for opened in content:
            opened.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class WaitForInflux:
    """Wait until a server answers, and see that it holds no database yet."""

    host_role: str
    server: Server
    docker: tuple[str, ...]
    as_root: tuple[str, ...]
    must_be_empty: bool = True

    def commands(self) -> tuple[str, ...]:
        """Return what is asked."""
        return (f"GET /ping of container {self.server.container}",)

    def do(self, scene: Scene) -> None:
        """Raise StepFailed where it does not answer in time, or is not empty."""
        host = scene.host(self.host_role)
        wait_for_ping(host, self.server.container, self.docker)
        if not self.must_be_empty:
            return
        catalogue = server_catalogue(host, self.server, self.as_root)
        if catalogue.names:
            raise StepFailed(
                f"Container {self.server.container} holds databases before anything was loaded "
                f"into it: {', '.join(catalogue.names)}. InfluxDB would then take nothing in. "
                "Does its image make one when it starts?"
            )


def server_catalogue(host: Host, server: Server, as_root: tuple[str, ...]) -> Catalogue:
    """Return what the server's own meta.db says; raises StepFailed where it cannot be read."""
    path = posixpath.join(server.data, "meta/meta.db")
    with host.pipe(Command((*as_root, "cat", path), limit_s=60)) as pipe:
        content = pipe.stdout.read()
        code = pipe.finish()
    if code:
        raise StepFailed(f"On {host.name}: {path} cannot be read.")
    try:
        return read_meta_db(content)
    except ValueError as error:
        raise StepFailed(f"On {host.name}: {path} cannot be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class LoadInflux:
    """Load a dump into a server, and prove it by the sizes of its files.

    Without `databases` all of it, once, into a server that is empty; else each of these in the
    place of the one that is there, whose grants it gets.
    """

    host_role: str
    server: Server
    dump: Dump
    inside: str
    docker: tuple[str, ...]
    as_root: tuple[str, ...]
    guard: str
    limit_s: float
    databases: tuple[str, ...] = ()

    def command(self, database: str = "") -> Command:
        """Return the load itself."""
        chosen = ("-db", database) if database else ()
        words = ("influxd", "restore", "-portable", *chosen, self.inside)
        words = (*self.docker, "exec", self.server.container, *words)
        command = guarded(self.guard, words, self.limit_s)
        return Command(command.words, frozenset(range(256)), command.limit_s)

    def commands(self) -> tuple[str, ...]:
        """Return the loads as a person would type them."""
        lines = []
        for name in self.databases:
            drop = influx_words(self.server, self.docker, f"DROP DATABASE {quoted(name)}")
            lines += [str(drop), str(self.command(name))]
        return (*(lines or [str(self.command())]), "compare the sizes of all TSM files")

    def do(self, scene: Scene) -> None:
        """Load and prove; raises StepFailed with what is not there."""
        host = scene.host(self.host_role)
        report = self.dump.report(scene)
        if not self.databases:
            self._load(scene, host, report)
        grants = server_catalogue(host, self.server, self.as_root).users if self.databases else ()
        for name in self.databases:
            ask_influx(host, self.server, self.docker, f"DROP DATABASE {quoted(name)}")
            self._load(scene, host, report, name)
            for user in grants:
                for grant in (grant for database, grant in user.grants if database == name):
                    if grant is not Grant.NOTHING:
                        text = f"GRANT {grant.name} ON {quoted(name)} TO {quoted(user.name)}"
                        ask_influx(host, self.server, self.docker, text)
        self._prove(scene, host, report)

    def _load(self, scene: Scene, host: Host, report: DumpReport, database: str = "") -> None:
        shards = [each for each in report.shards if database in ("", each.database)]
        lines: list[str] = []

        def hear(stream: str, line: str) -> None:
            lines.append(line)
            scene.hear(stream, line)
            read = read_restore_line(line)
            if read.say and read.level is not Level.HARMLESS:
                scene.say(read.say)

        outcome = host.run(self.command(database), hear)
        expected = frozenset(shard.id for shard in shards)
        verdict = judge_restore(lines, outcome.exit_code, expected)
        if verdict.metadata_refused:
            now = server_catalogue(host, self.server, self.as_root)
            asked = (database,) if database else ()
            cause = explain_metadata_refusal(report.catalogue, asked, now.names)
            if not cause.success:
                raise StepFailed(f"InfluxDB refused the dump: {cause.say}")
        elif verdict.problems:
            raise StepFailed(f"influxd restore failed: {' '.join(verdict.problems)}")
        for warning in verdict.warnings:
            scene.warn(warning)
        if verdict.skipped_internal:
            scene.say(say_internal_left_out(verdict.skipped_internal))

    def _prove(self, scene: Scene, host: Host, report: DumpReport) -> None:
        """Wait until every TSM file of the dump is on the server's disk, and as large."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while True:
            missing = missing_files(host, self.server, self.as_root, report, self.databases)
            if not missing:
                self._say_proven(scene, report)
                return
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"InfluxDB did not take all of the dump in: {'; '.join(missing[:5])}. Its "
                    "disk may be full; look at `docker logs`."
                )
            scene.say(f"waiting for {len(missing)} shards to settle")
            time.sleep(0.3)

    def _say_proven(self, scene: Scene, report: DumpReport) -> None:
        held = report.catalogue.names if report.catalogue else ()
        names = self.databases or held
        shards = [each for each in report.shards if each.database in names]
        size = sum(size for each in shards for _, size in each.tsm)
        scene.say(
            f"{PROVEN}{', '.join(names) or 'no database'} ({len(shards)} shards, {size:,} bytes)"
        )


def quoted(name: str) -> str:
    """Return a name as InfluxQL writes it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def influx_words(server: Server, docker: tuple[str, ...], text: str) -> Command:
    """Return the command that has a server execute a statement."""
    words = (*docker, "exec", server.container, "influx", "-execute", text)
    return Command(words, frozenset(range(256)), 600)


def ask_influx(host: Host, server: Server, docker: tuple[str, ...], text: str) -> None:
    """Have a server execute a statement; raises StepFailed where it does not."""
    told = host.run(influx_words(server, docker, text))
    if told.exit_code or told.out.startswith("ERR") or told.err.strip():
        raise StepFailed(f"InfluxDB did not do `{text}`: {told.last_words}")


def missing_files(
    host: Host,
    server: Server,
    as_root: tuple[str, ...],
    report: DumpReport,
    databases: tuple[str, ...] = (),
) -> list[str]:
    """Return the shards of a dump whose TSM files are not on the server's disk as they were.

    Those of `databases`, or of all.
    """
    places = server_catalogue(host, server, as_root).places
    new_ids = {tuple(place): shard for shard, place in places.items()}
    found = _tsm_sizes(host, server, as_root)
    missing = []
    for shard in report.shards:
        if databases and shard.database not in databases:
            continue
        new_id = new_ids.get((shard.database, shard.policy, shard.start_ns))
        have = sorted(found.get(new_id, ())) if new_id is not None else []
        want = sorted(size for _, size in shard.tsm)
        if have != want:
            missing.append(f"shard {shard.id} of {shard.database} has {have}, not {want} bytes")
    return missing


def _tsm_sizes(
    host: Host, server: Server, as_root: tuple[str, ...]
) -> Mapping[int, Iterable[int]]:
    """Return the sizes of the TSM files on the server's disk, by shard id."""
    folder = posixpath.join(server.data, "data")
    words = ("find", folder, "-name", "*.tsm", "-printf", "%s %h\\n")
    sizes: dict[int, list[int]] = {}
    for line in host.run(Command((*as_root, *words), limit_s=600)).out.splitlines():
        size, _, place = line.partition(" ")
        shard = posixpath.basename(place)
        if shard.isdigit():
            sizes.setdefault(int(shard), []).append(int(size))
    return sizes


@dataclass(frozen=True, slots=True)
class AddUsers:
    """Give a stopped server the users of a dump, with their passwords and grants.

    `influxd restore` throws them away. Their messages are appended to meta.db as they are:
    protobuf merges repeated fields. Undone with the data folder.
    """

    host_role: str
    server: Server
    dump: Dump
    notes: str
    as_root: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return what is done."""
        return (f"append the users of the dump to {self.server.data}/meta/meta.db",)

    def do(self, scene: Scene) -> None:
        """Append them; the hashes travel by a file of mode 0600 and never by an argument."""
        host = scene.host(self.host_role)
        catalogue = self.dump.report(scene).catalogue
        if catalogue is None or not catalogue.users:
            return
        host.receive(self.notes, io.BytesIO(b"".join(u.record for u in catalogue.users)), 0)
        script = 'cat "$1" >> "$2" && sync "$2"'
        target = posixpath.join(self.server.data, "meta/meta.db")
        words = (*self.as_root, "sh", "-c", script, "sh", self.notes, target)
        try:
            host.run(guarded(self.guard, words))
        finally:
            host.remove([self.notes])


def continuous_query_words(
    catalogue: Catalogue, databases: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the statements that make the continuous queries of a dump again."""
    found = catalogue.continuous_queries
    return tuple(query.text for name, query in found if not databases or name in databases)


@dataclass(frozen=True, slots=True)
class AddQueries:
    """Make the continuous queries of a dump again: `influxd restore` throws them away."""

    host_role: str
    server: Server
    dump: Dump
    docker: tuple[str, ...]
    databases: tuple[str, ...] = ()

    def commands(self) -> tuple[str, ...]:
        """Return what is done."""
        return (f"make the dump's continuous queries again in {self.server.container}",)

    def do(self, scene: Scene) -> None:
        """Make them; where InfluxDB does not take one, warn with the exact statement."""
        host = scene.host(self.host_role)
        catalogue = self.dump.report(scene).catalogue
        for text in continuous_query_words(catalogue, self.databases) if catalogue else ():
            try:
                ask_influx(host, self.server, self.docker, text)
            except StepFailed as error:
                words = shlex.join(("influx", "-execute", text))
                scene.warn(f"{error}. Run it in the container of InfluxDB: {words}")
