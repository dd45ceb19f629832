"""The influx part of an InfluxDB 1.x container: look, dump, prove, sweep into one plain tar.

Exit code 0 of `influxd backup` proves nothing: the server just closes the line when it fails.
The verdict is the exit code, the lines it must say, and an offline check of every file. Each
dump has a new folder of its own: two in one folder merge by shard number, silently.
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
"""What Docker says itself; that a container lacks a program says its runtime (OCI)."""
WORDS_BYTES = 50_000
"""How much of a text goes into one command: over SSH that is one word of 128 KiB at most."""
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
    """What was found of the InfluxDB container before the plan was made."""

    container: str
    version: str
    backup_on_host: str
    """Where its dumps come to lie; '' where nothing of the host can be seen by both."""
    data_on_host: str = ""
    apart: tuple[tuple[str, str], ...] = ()
    """Which of its folders have a mount of their own, each with where that lies on the host."""
    live: tuple[str, ...] = ()
    """Where it keeps its data, and its dumps, on the host: in no archive."""


def influx_facts(
    host: Host,
    found: InspectedContainer,
    as_root: tuple[str, ...] = (),
    docker: tuple[str, ...] = ("docker",),
) -> InfluxFacts:
    """Return what a dump of a running container needs to know.

    Raises StepFailed where its version is none of ours.
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
    """Return which of meta, data and wal have a mount of their own, each with its path here."""
    mounts = {each.inside.rstrip("/"): each.on_host for each in found.mounts}
    return tuple(
        (posixpath.basename(each), mounts[each]) for each in FOLDERS_INSIDE if mounts.get(each)
    )


def seen_on_host(
    host: Host, found: InspectedContainer, inside: str, as_root: tuple[str, ...]
) -> str:
    """Return a folder of dumps on the host, '' where it is not to be reached from here.

    A mount of its own for dumps is what IOTstack's template has; without one they lie among the
    data, or in a volume, or in the container alone.
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

    As its own `influxd config` tells, which reads its file and environment; where that tells
    nothing the defaults. Raises StepFailed where Docker cannot ask it, or is not understood.
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
    """Return the words of a server's command line that name its file of settings."""
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
    """Return the version of the influxd in a container; raises StepFailed where it tells none."""
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
    """Wait until /ping answers, watching the container; raises StepFailed."""
    deadline = time.monotonic() + limit_s
    while True:
        told = host.run(Command((*docker, "inspect", "--format", REACHED_FORM, container)))
        running, published, *addresses = told.out.split()
        if running != "true":
            raise StepFailed(
                f"Container {container} does not keep running. Check `docker logs {container}`."
            )
        # A new start gives a new address; on the host's own network there is none. A port may be
        # published on one address of the host only.
        ways = [(each, 8086) for each in addresses]
        if published != "0" or not addresses:  # else another's would answer there
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
    """A step that lets a container write a dump into a new folder.

    Undone: the dump is stopped if it still runs, and its folder removed.
    """

    container: str
    on_host: str
    """The folder on the host; '' where it is in the container alone."""
    inside: str
    """The same in the container."""
    limit_s: float

    @property
    def inner(self) -> tuple[str, ...]:
        """The words of the program that dumps, in the container."""
        raise NotImplementedError

    def undo(self, host: Host) -> None:
        """Stop the dump, if its client died before it, and remove its folder."""
        end_processes(host, self.access, self.container, self.inner)
        if self.on_host:
            words = (*self.access.as_root, "rm", "-rf", "--", self.on_host)
            host.run(Command(words, timeout_s=600))
        else:
            host.run(remove_inside(self.access, self.container, self.inside))


@dataclass(frozen=True, slots=True)
class DumpInflux(DumpStep):
    """Let influxd write a portable dump of all its databases into a new folder."""

    journaled_as = "DumpInflux"

    @property
    def inner(self) -> tuple[str, ...]:
        """The words of the program that dumps, in the container."""
        return ("influxd", "backup", "-portable", self.inside)

    @property
    def command(self) -> Command:
        """The dump itself."""
        words = ("exec", self.container, *self.inner)
        command = self.access.guarded_docker(*words, timeout_s=self.limit_s)
        return command.accepting(*ANY_EXIT)

    def commands(self) -> tuple[str, ...]:
        """Return the dump as a person would type it."""
        return (str(self.command),)

    @classmethod
    def of_earlier(cls, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the same of a journal that held where influxd answered as well."""
        return {name: value for name, value in told.items() if name not in ("port", "address")}

    def do(self, context: StepContext) -> None:
        """Make the dump; raises StepFailed with what its log says, or must have said."""
        host = self.access.host(context)
        self.undo(host)  # whatever an earlier attempt left would be merged into this dump
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
    """End the processes of a container whose words are exactly these."""
    top = (*access.docker, "top", container, "-eo", "pid,args")
    told = host.run(Command(top, ANY_EXIT, 30))
    either = frozenset({0, 1})  # it may have ended by itself
    for line in told.out.splitlines():
        pid, _, words = line.strip().partition(" ")
        # `docker top` makes one blank of two, and "?" of "ü" where dockerd has no locale.
        if not pid.isdigit() or not words.strip().startswith(" ".join(inner[:2])):
            continue
        found = host.run(Command((*access.as_root, "cat", f"/proc/{pid}/cmdline"), accept=either))
        if found.out.rstrip("\0").split("\0") == [*inner]:
            host.run(Command((*access.as_root, "kill", "-KILL", pid), accept=either))


@dataclass(frozen=True, slots=True)
class WriteQueries(HostStep):
    """Put the continuous queries of a dump beside its files, if it has any, one on each line.

    `influxd restore` throws them away. IOTstackBackup's script, and a person, have
    `influx -import` make them again from there.
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
        """Write them; of a catalogue that cannot be read the check of the dump tells."""
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
    """Return a statement on one line: `influx -import` takes each line for one."""
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
    """Remove a folder in a container that nobody needs any more."""

    container: str
    inside: str

    @property
    def command(self) -> Command:
        """What removes it."""
        return remove_inside(self.access, self.container, self.inside)


def reading_words(dump: DumpStep, tar: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that reads a dump as a tar: `tar` where it lies on the host.

    Else Docker gives it out of the container.
    """
    if dump.on_host:
        return (*tar, ".")
    return (*dump.access.docker, "cp", f"{dump.container}:{dump.inside}/.", "-")


def removal(dump: DumpStep) -> RemoveFolder | RemoveInside:
    """Return what removes a dump that is packed, wherever it lies."""
    if dump.on_host:
        return RemoveFolder(dump.access, dump.on_host)
    return RemoveInside(dump.access, dump.container, dump.inside)


@dataclass(frozen=True, slots=True)
class SweepInflux:
    """Sweep a dump into one plain tar and check every file of it, in one pass.

    Its shards are compressed already: gzip over them took thirty times as long for no gain.
    """

    output: File
    words: tuple[str, ...]
    """What gives the tar."""
    container: str
    version: str
    limit_s: float
    data: str = ""
    """Where its folder of data lies, as seen from the stack; '' where none is mapped."""
    apart: tuple[tuple[str, str], ...] = ()
    """Which of its folders lie elsewhere, and where, as seen from the stack."""

    def commands(self) -> tuple[str, ...]:
        """Return the tar as a person would type it."""
        return (f"{Command(self.words)} > '{self.output.partial}'", "check every shard")

    def do(self, context: StepContext) -> None:
        """Write the tar under its partial name; raises StepFailed where the dump is not whole."""
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
    """Write what a tar says under the partial name of an output, and hand on each of its files.

    Size and hash are noted; raises StepFailed where tar failed, or its archive is damaged.
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
        judge_tar(pipe.finish(), said.lines, context)  # its own words come before their result
    if damage:
        raise damage
    context.record(output, size_bytes=hashed.size_bytes, sha256=hashed.digest.hexdigest())


def facts_of(report: DumpReport) -> dict[str, object]:
    """Return what a manifest tells of a dump, as plain values."""
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
    """Return the files of a plain tar that is read once, from the beginning to the end."""
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    yield member.name, content
    except tarfile.TarError as error:
        raise StepFailed(f"The tar of the dump is damaged: {error}.", again=True) from error


class _Tee:
    """A stream that writes down what is read from it."""

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
        """Take what follows the end of the archive: tar pads to a record of 10 KiB."""
        while chunk := read_chunk(self.source):
            self.copy.write(chunk)
