"""The influx part of an InfluxDB 1.x container: look, dump, prove, sweep into one plain tar.

Exit code 0 of `influxd backup` proves nothing: the server just closes the line when it fails.
The verdict is the exit code, the lines it must say, and an offline check of every file. Each
dump has a new folder of its own: two in one folder merge by shard number, silently.
"""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from ..errors import StepFailed
from ..hosts import CHUNK_BYTES, read_chunk
from ..steps import Command, File, Host, Scene
from ..values import dataclass
from .archive import HashedFile, Said, judge_tar
from .compose import Found
from .influx_check import DumpCheck, DumpReport
from .influx_log import Level, judge_backup, read_backup_line
from .stack import guarded

BACKUP_INSIDE = "/var/lib/influxdb/backup"
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


def influx_facts(host: Host, found: Found) -> InfluxFacts:
    """Return what a dump of a running container needs to know.

    Raises StepFailed where its backup folder is not mapped or its version is none of ours.
    """
    name = found.container.name
    mounts = [each for each in found.mounts if each.inside == BACKUP_INSIDE]
    version = influx_version(host, name)
    if not version.startswith("1."):
        raise StepFailed(
            f"Container {name} runs InfluxDB {version}; this part is for InfluxDB 1.x. Its data "
            "are in no archive. If that is meant, say so in hosts.toml: [[services]], name = "
            f'"{name}", kind = "dump", dump = "influxdb2".'
        )
    if not mounts:
        raise StepFailed(
            f"Container {name} does not map {BACKUP_INSIDE}, so a dump cannot get out. Add to "
            f"its volumes in docker-compose.yml:\n      - ./backups/influxdb/db:{BACKUP_INSIDE}\n"
            "and run `docker compose up -d` (or `docker-compose up -d`)."
        )
    return InfluxFacts(
        container=name,
        version=version,
        backup_on_host=mounts[0].on_host,
    )


def influx_version(
    host: Host, container: str, docker: tuple[str, ...] = ("docker",), limit_s: float = 30
) -> str:
    """Return the version of the influxd in a container; raises StepFailed where it tells none."""
    told = host.run(
        Command(
            (*docker, "exec", container, "influxd", "version"),
            accept=frozenset(range(256)),
            limit_s=limit_s,
        )
    )
    words = told.out.split()  # InfluxDB v1.8.10 (git: 1.8 688e697c51fd)
    if len(words) < 2 or words[0] != "InfluxDB":  # noqa: PLR2004 - a name and a version
        raise StepFailed(
            f"Container {container} does not tell the version of its influxd (exit "
            f"{told.exit_code}): {told.last_words}"
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
                f"Container {container} does not stay up. Look at `docker logs {container}`."
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
                f"{limit_s:g} s. Look at `docker logs {container}`."
            )
        time.sleep(0.3)


@dataclass(frozen=True, slots=True)
class DumpInflux:
    """Let influxd write a portable dump of all its databases into a new folder.

    Undone: the dump is stopped if it still runs, and its folder removed.
    """

    host_role: str
    container: str
    on_host: str
    inside: str
    as_root: tuple[str, ...]
    limit_s: float
    docker: tuple[str, ...] = ("docker",)
    guard: str = ""
    """The lock that every changing command holds; '' in a backup, which changes nothing."""

    @property
    def command(self) -> Command:
        """The dump itself."""
        words = (*self.docker, "exec", self.container, *self._inner)
        if self.guard:
            words = guarded(self.guard, words).words
        return Command(words, accept=frozenset(range(256)), limit_s=self.limit_s)

    @property
    def _inner(self) -> tuple[str, ...]:
        return ("influxd", "backup", "-portable", self.inside)

    def commands(self) -> tuple[str, ...]:
        """Return the dump as a person would type it."""
        return (str(self.command),)

    def do(self, scene: Scene) -> None:
        """Make the dump; raises StepFailed with what its log says, or must have said."""
        host = scene.host(self.host_role)
        self.undo(host)  # whatever an earlier attempt left would be merged into this dump
        wait_for_ping(host, self.container, self.docker, min(READY_LIMIT_S, self.limit_s))
        lines: list[str] = []

        def hear(stream: str, line: str) -> None:
            lines.append(line)
            scene.hear(stream, line)
            read = read_backup_line(line)
            if read.level is Level.ERROR and "no space left" in line:
                # influxd would try ten times, for four minutes (measured)
                raise StepFailed(f"There is no room for the dump in {self.on_host}: {line}")
            if read.say and read.shard is not None:
                scene.say(read.say)

        outcome = host.run(self.command, hear)
        verdict = judge_backup(lines, outcome.exit_code)
        if verdict.problems:
            raise StepFailed(
                f"influxd backup in container {self.container} failed: "
                + " ".join(verdict.problems),
                again=verdict.again,
            )
        for warning in verdict.warnings:
            scene.warn(warning)

    def undo(self, host: Host) -> None:
        """Stop the dump, if its client died before it, and remove its folder."""
        end_dump(host, self.container, self._inner, self.on_host, self.docker, self.as_root)


def end_dump(
    host: Host,
    container: str,
    inner: tuple[str, ...],
    folder: str,
    docker: tuple[str, ...],
    as_root: tuple[str, ...],
) -> None:
    """End the processes of a container whose words are exactly these; remove their folder."""
    told = host.run(
        Command(
            (*docker, "top", container, "-eo", "pid,args"),
            accept=frozenset(range(256)),
            limit_s=30,
        )
    )
    either = frozenset({0, 1})  # it may have ended by itself
    for line in told.out.splitlines():
        pid, _, words = line.strip().partition(" ")
        # `docker top` makes one blank of two, and "?" of "ü" where dockerd has no locale.
        if not pid.isdigit() or not words.strip().startswith(" ".join(inner[:2])):
            continue
        found = host.run(Command((*as_root, "cat", f"/proc/{pid}/cmdline"), accept=either))
        if found.out.rstrip("\0").split("\0") == [*inner]:
            host.run(Command((*as_root, "kill", "-KILL", pid), accept=either))
    host.run(Command((*as_root, "rm", "-rf", "--", folder), limit_s=600))


@dataclass(frozen=True, slots=True)
class SweepInflux:
    """Sweep a dump into one plain tar and check every file of it, in one pass.

    Its shards are compressed already: gzip over them took thirty times as long for no gain.
    """

    output: File
    tar: tuple[str, ...]
    container: str
    version: str
    limit_s: float

    def commands(self) -> tuple[str, ...]:
        """Return the tar as a person would type it."""
        return (f"{Command((*self.tar, '.'))} > '{self.output.partial}'", "check every shard")

    def do(self, scene: Scene) -> None:
        """Write the tar under its partial name; raises StepFailed where the dump is not whole."""
        scene.say("checking every shard")
        check = DumpCheck()
        command = Command((*self.tar, "."), limit_s=self.limit_s)
        sweep(scene, self.output, command, check.add)
        report = check.report()
        if report.problems:
            raise StepFailed(
                f"The dump of container {self.container} is not whole: "
                + " ".join(report.problems),
                again=report.again,
            )
        told = {"container": self.container, "version": self.version}
        scene.learn(self.output, **told, **facts_of(report))


def sweep(
    scene: Scene, output: File, command: Command, take: Callable[[str, IO[bytes]], None]
) -> None:
    """Write what a tar says under the partial name of an output, and hand on each of its files.

    Size and hash are noted; raises StepFailed where tar failed, or its archive is damaged.
    """
    host = scene.host(output.role)
    said = Said(scene)
    damage: StepFailed | None = None
    with host.pipe(command, said) as pipe, host.create(output.partial) as target:
        hashed = HashedFile(target)
        tee = _Tee(pipe.stdout, hashed, scene)
        try:
            for name, stream in members(tee):
                take(name, stream)
        except StepFailed as error:
            damage = error
        tee.drain()
        judge_tar(pipe.finish(), said.lines, scene)  # its own words come before their result
    if damage:
        raise damage
    scene.learn(output, size_bytes=hashed.size_bytes, sha256=hashed.digest.hexdigest())


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

    def __init__(self, source: IO[bytes], copy: HashedFile, scene: Scene) -> None:
        self.source = source
        self.copy = copy
        self.scene = scene

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.copy.write(data)
        self.scene.moved(len(data))
        return data

    def drain(self) -> None:
        """Take what follows the end of the archive: tar pads to a record of 10 KiB."""
        while chunk := read_chunk(self.source):
            self.copy.write(chunk)
