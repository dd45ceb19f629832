"""The influx part of an InfluxDB 1.x container: inspect, dump, verify, pack into one plain tar.

Exit code 0 of `influxd backup` proves nothing: the server just closes the connection on failure.
The verdict is the exit code, the lines it must print, and an offline check of every file. Each
dump has a new folder: two dumps in one folder are merged by shard number, without a warning.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from ...archives.pack import HashedFile, Messages, RemoveFolder, judge_tar
from ...core import processes
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...core.toml_text import NotToml, read_toml
from ...engine.steps import CommandStep, File, HostAccess, HostStep, StepContext
from ...hosts.base import ANY_EXIT, Command, Host
from ...hosts.json_answers import read_json
from ...hosts.local import CHUNK_BYTES, read_chunk
from ...stack.compose import InspectedContainer
from ...stack.inside import mount_around, path_on_host
from .check import QUERIES_FILE, DumpCheck, DumpReport
from .log import Level, judge_backup, read_backup_line
from .meta import read_meta

DATA_INSIDE = "/var/lib/influxdb"
BACKUP_INSIDE = f"{DATA_INSIDE}/backup"
FOLDERS_INSIDE = ("/var/lib/influxdb/meta", "/var/lib/influxdb/data", "/var/lib/influxdb/wal")
DOCKER_SAYS = re.compile(r"Docker daemon|docker API|response from daemon: (?!OCI)")
"""Docker's own errors; the runtime (OCI) reports that a container lacks a program."""
WORDS_BYTES = 50_000
"""The maximum text in one command: over SSH that is one word of at most 128 KiB."""
READY_LIMIT_S = 120.0
"""An influxd with a full write-ahead log on an SD card needs minutes to open its store."""
PING_OK = 204
LOOPBACK = "127.0.0.1"
REACHED_FORM = (
    '{{.State.Running}} {{with index .NetworkSettings.Ports "8086/tcp"}}{{(index . 0).HostPort}}'
    "{{else}}0{{end}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
)
"""Whether a container runs, its published port (0 for none), its addresses."""


@dataclass(frozen=True, slots=True)
class InfluxFacts:
    """Facts about the InfluxDB container, gathered before planning."""

    container: str
    version: str
    backup_on_host: str
    """The folder for its dumps; '' if host and container have none in common."""
    data_on_host: str = ""
    apart: tuple[tuple[str, str], ...] = ()
    """Its folders that have mounts of their own, each with its path on the host."""
    live: tuple[str, ...] = ()
    """Its data folder and its dumps folder on the host: no archive includes them."""


def influx_facts(
    host: Host,
    found: InspectedContainer,
    as_root: tuple[str, ...] = (),
    docker: tuple[str, ...] = ("docker",),
) -> InfluxFacts:
    """Return the facts that a dump of a running container needs.

    Raises StepFailed if its version is not supported.
    """
    name = found.container.name
    version = influx_version(host, name, docker)
    if not version.startswith("1."):
        raise StepFailed(
            f"Container {name} runs InfluxDB {version}; this part is for InfluxDB 1.x. Its data "
            "are in no archive. If this is intended, add to hosts.toml: [[services]], name = "
            f'"{name}", kind = "dump", dump = "influxdb2".'
        )
    inside = (*influx_folders(host, name, docker), BACKUP_INSIDE)
    on_host = [path_on_host(found.mounts, each) for each in inside]
    return InfluxFacts(
        container=name,
        version=version,
        backup_on_host=seen_on_host(host, found, BACKUP_INSIDE, as_root),
        data_on_host=path_on_host(found.mounts, DATA_INSIDE),
        apart=mapped_apart(found),
        live=tuple(dict.fromkeys(filter(None, on_host))),
    )


def mapped_apart(found: InspectedContainer) -> tuple[tuple[str, str], ...]:
    """Return which of meta, data and wal have mounts of their own, each with its host path."""
    mounts = {each.inside.rstrip("/"): each.on_host for each in found.mounts}
    return tuple(
        (posixpath.basename(each), mounts[each]) for each in FOLDERS_INSIDE if mounts.get(each)
    )


def seen_on_host(
    host: Host, found: InspectedContainer, inside: str, as_root: tuple[str, ...]
) -> str:
    """Return a folder of dumps on the host, '' if the host cannot reach it.

    IOTstack's template mounts a separate folder for dumps; without it, dumps are among the data,
    in a volume, or only inside the container.
    """
    mount = mount_around(found.mounts, inside)
    if mount is None or not mount.on_host:
        return ""
    told = host.run(Command((*as_root, "test", "-d", mount.on_host), ANY_EXIT))
    return "" if told.exit_code else path_on_host(found.mounts, inside)


def influx_folders(
    host: Host, container: str, docker: tuple[str, ...] = ("docker",)
) -> tuple[str, ...]:
    """Return where a running server keeps its catalogue, data and write-ahead log, inside.

    Source: its own `influxd config`, which reads its file and environment; the defaults if that
    fails, or prints no such settings. Raises StepFailed if Docker cannot run it, or Docker's
    description of the container is not understood.
    """
    asked = Command((*docker, "inspect", "--format", "{{json .Args}}", container))
    words = _words_of_config(host.run(asked).out, host.name)
    command = Command((*docker, "exec", container, "influxd", "config", *words), ANY_EXIT, 30)
    told = host.run(command)
    if told.exit_code and DOCKER_SAYS.search(told.err):
        raise StepFailed(
            f"Cannot find where InfluxDB in container {container} keeps its data: {told.last_line}"
        )
    try:
        found = read_toml(told.out)
        paths = (found["meta"]["dir"], found["data"]["dir"], found["data"]["wal-dir"])
    except (NotToml, KeyError, TypeError):
        return FOLDERS_INSIDE
    return tuple(str(each) or default for each, default in zip(paths, FOLDERS_INSIDE, strict=True))


def _words_of_config(args: str, host: str) -> tuple[str, ...]:
    """Return the arguments of a server's command line that name its settings file."""
    words = read_json(args or "[]", f"`docker inspect` on {host}").texts()
    for number, word in enumerate(words):
        name, equals, value = word.lstrip("-").partition("=")
        if name == "config" and word.startswith("-"):
            value = value if equals else next(iter(words[number + 1 :]), "")
            return ("-config", value) if value else ()
    return ()


def influx_version(
    host: Host, container: str, docker: tuple[str, ...] = ("docker",), limit_s: float = 30
) -> str:
    """Return the version of the influxd in a container; raises StepFailed if it prints none."""
    told = host.run(
        Command(
            (*docker, "exec", container, "influxd", "version"),
            accept=ANY_EXIT,
            timeout_s=limit_s,
        )
    )
    words = told.out.split()  # InfluxDB v1.8.10 (git: 1.8 688e697c51fd)
    if len(words) < 2 or words[0] != "InfluxDB":  # noqa: PLR2004 - a name and a version
        raise StepFailed(
            f"Cannot read the influxd version of container {container} (exit {told.exit_code}): "
            f"{told.last_line}"
        )
    return words[1].lstrip("v")


def wait_for_ping(
    host: Host, container: str, docker: tuple[str, ...], limit_s: float = READY_LIMIT_S
) -> None:
    """Wait until /ping answers, checking that the container runs; raises StepFailed."""
    deadline = time.monotonic() + limit_s
    while True:
        told = host.run(Command((*docker, "inspect", "--format", REACHED_FORM, container)))
        running, published, *addresses = told.out.split()
        if running != "true":
            raise StepFailed(
                f"Container {container} does not keep running. Check `docker logs {container}`."
            )
        # After a restart the address is a new one; on the host's network it is empty. A port may
        # be published on one address of the host only.
        ways = [(each, 8086) for each in addresses]
        if published != "0" or not addresses:  # otherwise another server would answer there
            ways.append((LOOPBACK, int(published) or 8086))
        if any(host.http_status(port, "/ping", address) == PING_OK for address, port in ways):
            return
        if time.monotonic() > deadline:
            tried = ", ".join(f"{address}:{port}" for address, port in ways)
            raise StepFailed(
                f"InfluxDB in container {container} does not answer /ping at {tried} within "
                f"{limit_s:g} s. Check `docker logs {container}`."
            )
        processes.pause(0.3)


@dataclass(frozen=True, slots=True)
class DumpStep(HostStep):
    """A step that makes a container write a dump into a new folder.

    Undo stops the dump if it still runs, and removes its folder.
    """

    container: str
    on_host: str
    """The folder on the host; '' if it is only inside the container."""
    inside: str
    """The same folder inside the container."""
    limit_s: float

    @property
    def inner(self) -> tuple[str, ...]:
        """The arguments of the dump program inside the container."""
        raise NotImplementedError

    def undo(self, host: Host) -> None:
        """Stop the dump, which may outlive its client, and remove its folder."""
        end_processes(host, self.access, self.container, self.inner)
        if self.on_host:
            words = (*self.access.as_root, "rm", "-rf", "--", self.on_host)
            host.run(Command(words, timeout_s=600))
        else:
            host.run(remove_inside(self.access, self.container, self.inside))


@dataclass(frozen=True, slots=True)
class DumpInflux(DumpStep):
    """Make influxd write a portable dump of all its databases into a new folder."""

    journaled_as = "DumpInflux"

    @property
    def inner(self) -> tuple[str, ...]:
        """The arguments of the dump program inside the container."""
        return ("influxd", "backup", "-portable", self.inside)

    @property
    def command(self) -> Command:
        """The dump command."""
        words = ("exec", self.container, *self.inner)
        command = self.access.guarded_docker(*words, timeout_s=self.limit_s)
        return command.accepting(*ANY_EXIT)

    def commands(self) -> tuple[str, ...]:
        """Return the dump command as a user would type it."""
        return (str(self.command),)

    @classmethod
    def of_earlier(cls, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a step in a journal; older ones held influxd's address as well."""
        return {name: value for name, value in told.items() if name not in ("port", "address")}

    def do(self, context: StepContext) -> None:
        """Dump; raises StepFailed with the errors in its log, or with the lines that it lacks."""
        host = self.access.host(context)
        self.undo(host)  # files of an earlier attempt would be merged into this dump
        wait_for_ping(host, self.container, self.access.docker, min(READY_LIMIT_S, self.limit_s))
        lines: list[str] = []

        def hear(stream: str, line: str) -> None:
            lines.append(line)
            context.log_output(stream, line)
            read = read_backup_line(line)
            if read.level is Level.ERROR and "no space left" in line:
                # influxd would try ten times, for four minutes (measured)
                raise StepFailed(f"Not enough space for the dump in {self.on_host}: {line}")
            if read.say and read.shard is not None:
                context.status(read.say)

        outcome = host.run(self.command, hear)
        verdict = judge_backup(lines, outcome.exit_code)
        if verdict.problems:
            raise StepFailed(
                f"influxd backup in container {self.container} failed: "
                + " ".join(verdict.problems),
                again=verdict.again,
            )
        for warning in verdict.warnings:
            context.warn(warning)


def remove_inside(access: HostAccess, container: str, folder: str) -> Command:
    """Return the command that removes a folder in a container, which may be stopped or gone."""
    words = ("exec", container, "rm", "-rf", "--", folder)
    return Command((*access.docker, *words), ANY_EXIT, 600)


def end_processes(host: Host, access: HostAccess, container: str, inner: tuple[str, ...]) -> None:
    """End the processes of a container whose arguments are exactly these."""
    top = (*access.docker, "top", container, "-eo", "pid,args")
    told = host.run(Command(top, ANY_EXIT, 30))
    either = frozenset({0, 1})  # it may have ended by itself
    for line in told.out.splitlines():
        pid, _, words = line.strip().partition(" ")
        # `docker top` prints one blank for two, and "?" for "ü" if dockerd has no locale.
        if not pid.isdigit() or not words.strip().startswith(" ".join(inner[:2])):
            continue
        found = host.run(Command((*access.as_root, "cat", f"/proc/{pid}/cmdline"), accept=either))
        if found.out.rstrip("\0").split("\0") == [*inner]:
            host.run(Command((*access.as_root, "kill", "-KILL", pid), accept=either))


@dataclass(frozen=True, slots=True)
class WriteQueries(HostStep):
    """Write the continuous queries of a dump beside its files, if it has any, one on each line.

    `influxd restore` discards them. IOTstackBackup's script, and users, create them again from
    this file with `influx -import`.
    """

    container: str
    inside: str

    def commands(self) -> tuple[str, ...]:
        """Return what is written."""
        return (f"write the continuous queries of the dump to '{self._path}' in {self.container}",)

    @property
    def _path(self) -> str:
        return posixpath.join(self.inside, QUERIES_FILE)

    def do(self, context: StepContext) -> None:
        """Write them; if the catalogue cannot be read, the check of the dump reports it."""
        host = self.access.host(context)
        run = (*self.access.docker, "exec", self.container, "sh", "-c")
        words = (*run, 'cat "$1"/*.meta', "sh", self.inside)
        with host.pipe(Command(words, timeout_s=600)) as pipe:
            content = pipe.stdout.read()
            pipe.finish()
        try:
            queries = read_meta(content).continuous_queries
        except ValueError:
            return
        for lines in _in_pieces(line_of(query.text) for _, query in queries):
            script = 'out=$1; shift; printf "%s\\n" "$@" >> "$out"'
            host.run(Command((*run, script, "sh", self._path, *lines), timeout_s=60))


def line_of(query: str) -> str:
    """Return a statement on one line: `influx -import` takes each line as one statement."""
    return " ".join(query.splitlines())


def _in_pieces(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield lines in lists that fit into one command each."""
    piece: list[str] = []
    for line in lines:
        if piece and sum(map(len, piece)) + len(line) > WORDS_BYTES:
            yield piece
            piece = []
        piece.append(line)
    if piece:
        yield piece


@dataclass(frozen=True, slots=True)
class RemoveInside(CommandStep):
    """Remove a folder in a container that is no longer needed."""

    container: str
    inside: str

    @property
    def command(self) -> Command:
        """The command that removes it."""
        return remove_inside(self.access, self.container, self.inside)


def reading_words(dump: DumpStep, tar: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that reads a dump as a tar: `tar` if the dump is on the host.

    Otherwise Docker copies it out of the container.
    """
    if dump.on_host:
        return (*tar, ".")
    return (*dump.access.docker, "cp", f"{dump.container}:{dump.inside}/.", "-")


def removal(dump: DumpStep) -> RemoveFolder | RemoveInside:
    """Return the command that removes a packed dump, on the host or in the container."""
    if dump.on_host:
        return RemoveFolder(dump.access, dump.on_host)
    return RemoveInside(dump.access, dump.container, dump.inside)


@dataclass(frozen=True, slots=True)
class SweepInflux:
    """Pack a dump into one plain tar and verify every file of it, in one pass.

    Its shards are compressed already: gzip over them took thirty times as long for no gain.
    """

    output: File
    words: tuple[str, ...]
    """The command that writes the tar."""
    container: str
    version: str
    limit_s: float
    data: str = ""
    """Its data folder, relative to the stack; '' if none is mapped."""
    apart: tuple[tuple[str, str], ...] = ()
    """Its folders with mounts of their own, each with its path relative to the stack."""

    def commands(self) -> tuple[str, ...]:
        """Return the tar command as a user would type it."""
        return (f"{Command(self.words)} > '{self.output.partial}'", "check every shard")

    def do(self, context: StepContext) -> None:
        """Write the tar under its partial name; raises StepFailed if the dump is incomplete."""
        context.status("checking every shard")
        check = DumpCheck()
        sweep(context, self.output, Command(self.words, timeout_s=self.limit_s), check.add)
        report = check.report()
        if report.problems:
            raise StepFailed(
                f"The dump of container {self.container} is incomplete: "
                + " ".join(report.problems),
                again=report.again,
            )
        told = {"container": self.container, "version": self.version, "data": self.data}
        apart = {"apart": dict(self.apart)} if self.apart else {}
        context.record(self.output, **told, **apart, **facts_of(report))


def sweep(
    context: StepContext, output: File, command: Command, take: Callable[[str, IO[bytes]], None]
) -> None:
    """Write a tar under the partial name of an output, and pass on each of its files.

    Records size and hash; raises StepFailed if tar failed, or its archive is damaged.
    """
    host = context.host(output.role)
    said = Messages(context)
    damage: StepFailed | None = None
    with host.pipe(command, said) as pipe, host.create(output.partial) as target:
        hashed = HashedFile(target)
        tee = _Tee(pipe.stdout, hashed, context)
        try:
            for name, stream in members(tee):
                take(name, stream)
        except StepFailed as error:
            damage = error
        tee.drain()
        judge_tar(pipe.finish(), said.lines, context)  # tar's own messages come before the result
    if damage:
        raise damage
    context.record(output, size_bytes=hashed.size_bytes, sha256=hashed.digest.hexdigest())


def facts_of(report: DumpReport) -> dict[str, object]:
    """Return the facts about a dump for the manifest, as plain values."""
    return {
        "databases": list(report.databases),
        "shards": [
            {
                "id": shard.id,
                "database": shard.database,
                "policy": shard.policy,
                "start_ns": shard.start_ns,
                "size_bytes": shard.bytes,
                "tsm_bytes": [size for _, size in shard.tsm],
            }
            for shard in report.shards
        ],
        "internal_shards": report.internal_shards,
        "continuous_queries": report.continuous_queries,
        "users": report.users,
        "user_names": [each.name for each in report.catalogue.users] if report.catalogue else [],
    }


def members(stream: Any) -> Iterator[tuple[str, IO[bytes]]]:
    """Return the files of a plain tar, read once from beginning to end."""
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    yield member.name, content
    except tarfile.TarError as error:
        raise StepFailed(f"The tar of the dump is damaged: {error}.", again=True) from error


class _Tee:
    """A stream that also writes what is read from it to a file."""

    def __init__(self, source: IO[bytes], copy: HashedFile, context: StepContext) -> None:
        self.source = source
        self.copy = copy
        self.context = context

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.copy.write(data)
        self.context.advance(len(data))
        return data

    def drain(self) -> None:
        """Read what follows the end of the archive: tar pads to a record of 10 KiB."""
        while chunk := read_chunk(self.source):
            self.copy.write(chunk)
