"""The part of an InfluxDB 2.x container: look, dump, prove, sweep into one plain tar.

Experimental: written from the documentation, since none can be run where this is tested. The part
holds what IOTstackBackup's does, `config`, `data` without the engine and `backup`, so that its
script restores it; but `data` is what the dump's own snapshots hold, not the live files.
InfluxDB 3 has no backup of its own: it is only recognised here.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import time
from collections.abc import Iterable
from functools import cache

from ..errors import StepFailed
from ..steps import Command, File, Host, Scene
from ..values import dataclass
from .compose import Found
from .influx import end_dump, influx_version, sweep
from .influx2_check import EXPERIMENTAL, Influx2Check, facts_of, judge_lines, shard_of

DATA_INSIDE = "/var/lib/influxdb2"
CONFIG_INSIDE = "/etc/influxdb2"
BACKUP_INSIDE = "/var/lib/backup"
READY_LIMIT_S = 120.0
READY_PAUSE_S = 0.5
ANY_EXIT = frozenset(range(256))
_VERSION_3 = re.compile(r"\b3\.\d+\.\d+\b")

# "$1" is the folder of the dump, "$2" that of the live data, "$3" of the configuration or ''.
GATHER = (
    'set -e; dump=$1 data=$2 config=$3; mkdir "$dump/data"; '
    'like() { chown --reference="$1" "$2"; chmod --reference="$1" "$2"; }; '
    'like "$data" "$dump/data"; '
    "for kind in bolt sqlite; do "
    'live="$data/influxd.$kind"; copy="$dump/data/influxd.$kind"; '
    'for each in "$dump/backup/"*."$kind.gz"; do '
    'if [ -f "$each" ]; then '
    'gzip --decompress --stdout -- "$each" > "$copy"; '
    'if [ -f "$live" ]; then like "$live" "$copy"; fi; '
    "fi; done; done; "
    'if [ -n "$config" ]; then cp --archive --no-target-directory "$config" "$dump/config"; fi'
)


@dataclass(frozen=True, slots=True)
class Influx2Facts:
    """What was found of the InfluxDB 2 container before the plan was made."""

    container: str
    version: str
    data_on_host: str
    backup_on_host: str
    config_on_host: str = ""
    """'' where it is not mapped: then its tokens are known to nobody after it was made anew."""


@cache
def _script() -> str:
    """Return what is run in the container."""
    with open(f"{os.path.dirname(__file__)}/influxdb2.sh", encoding="utf-8") as stream:
        return stream.read()


def run_in(docker: tuple[str, ...], container: str, *words: str, limit_s: float = 60.0) -> Command:
    """Return the command that asks or dumps in a container; any exit code is accepted."""
    called = (*docker, "exec", container)
    return Command(
        (*called, "sh", "-c", _script(), "sh", *words),
        accept=ANY_EXIT,
        limit_s=limit_s,
        called=shlex.join((*called, "influxdb2.sh", *words)),
    )


def server_version(host: Host, container: str, docker: tuple[str, ...] = ("docker",)) -> str:
    """Return the version of the InfluxDB in a container, whatever its image is called.

    The tag `latest` of its image has been of all of them. Raises StepFailed where it tells none.
    """
    try:
        return influx_version(host, container, docker)
    except StepFailed:
        words = (*docker, "exec", container, "influxdb3", "--version")
        told = host.run(Command(words, accept=ANY_EXIT, limit_s=30))
        if not told.exit_code and (found := _VERSION_3.search(told.out)):
            return found[0]
        raise


def influx2_facts(found: Found, version: str) -> Influx2Facts:
    """Return what a dump of a running container needs to know; raises StepFailed."""
    name = found.container.name
    mounts = {each.inside.rstrip("/"): each.on_host for each in found.mounts}
    if not version.startswith("2.") or version.startswith("2.0."):
        raise StepFailed(
            f"Container {name} runs InfluxDB {version}; this part is for InfluxDB 2.1 and newer "
            "2.x. Its data are in no archive."
        )
    for inside, folder in ((DATA_INSIDE, "data"), (BACKUP_INSIDE, "backup")):
        if inside not in mounts:
            raise StepFailed(
                f"Container {name} does not map {inside}, so its data cannot get out. Add to its "
                f"volumes in docker-compose.yml:\n      - ./volumes/influxdb2/{folder}:{inside}\n"
                "and run `docker compose up -d` (or `docker-compose up -d`)."
            )
    return Influx2Facts(
        container=name,
        version=version,
        data_on_host=mounts[DATA_INSIDE],
        backup_on_host=mounts[BACKUP_INSIDE],
        config_on_host=mounts.get(CONFIG_INSIDE, ""),
    )


def data_folders(found: Iterable[Found]) -> tuple[str, ...]:
    """Return where containers map the data of an InfluxDB 2."""
    mounts = (mount for each in found for mount in each.mounts)
    return tuple(m.on_host for m in mounts if m.inside.rstrip("/") == DATA_INSIDE)


def steps_by_hand(container: str, part: str) -> tuple[str, ...]:
    """Return the commands that restore a part by hand, in the folder of a stack of IOTstack's.

    `part` is its file as a word of a shell.
    """
    store = "volumes/influxdb2"
    return (
        f"docker compose stop {container}",
        f"sudo mv {store} {store}.before && sudo mkdir {store}",
        f"sudo tar -xf {part} -C {store} --same-owner",
        f"docker compose up -d {container}",
        f"docker exec {container} influx ping   # again, until it says OK",
        f"docker exec {container} influx restore {BACKUP_INSIDE} --full",
    )


@dataclass(frozen=True, slots=True)
class DumpInflux2:
    """Let influx write a dump of all buckets into a new folder, with what a server needs besides.

    Undone: the dump is stopped if it still runs, and its folder removed.
    """

    host_role: str
    container: str
    on_host: str
    inside: str
    data: str
    config: str
    as_root: tuple[str, ...]
    limit_s: float
    docker: tuple[str, ...] = ("docker",)

    @property
    def _command(self) -> Command:
        words = ("backup", f"{self.inside}/backup")
        return run_in(self.docker, self.container, *words, limit_s=self.limit_s)

    @property
    def _gather(self) -> Command:
        words = ("sh", "-c", GATHER, "sh", self.on_host, self.data, self.config)
        called = shlex.join((*self.as_root, "gather", self.on_host, self.data, self.config))
        return Command((*self.as_root, *words), ANY_EXIT, self.limit_s, called)

    def commands(self) -> tuple[str, ...]:
        """Return the dump, and what is put beside it, as a person would type them."""
        kept = " and the configuration" if self.config else ""
        return (self._command.shown, f"unpack its snapshots{kept} beside it in '{self.on_host}'")

    def do(self, scene: Scene) -> None:
        """Make the dump; raises StepFailed with what it says, or must have said."""
        host = scene.host(self.host_role)
        scene.say(EXPERIMENTAL)
        self.undo(host)  # a restore would take whatever an earlier attempt left
        wait_until_ready(host, self.container, self.docker, min(READY_LIMIT_S, self.limit_s))
        lines: list[str] = []

        def hear(stream: str, line: str) -> None:
            lines.append(line)
            scene.hear(stream, line)
            if (shard := shard_of(line)) is not None:
                scene.say(f"shard {shard}")

        outcome = host.run(self._command, hear)
        verdict = judge_lines(lines, outcome.exit_code)
        if verdict.problems:
            raise StepFailed(
                f"influx backup in container {self.container} failed: "
                + " ".join(verdict.problems),
                again=verdict.again,
            )
        for warning in verdict.warnings:
            scene.warn(warning)
        told = host.run(self._gather, scene.hear)
        if told.exit_code:
            raise StepFailed(
                f"The dump of container {self.container} is not whole: {told.last_words}",
                again=True,
            )

    def undo(self, host: Host) -> None:
        """Stop the dump, if its client died before it, and remove its folder."""
        inner = ("influx", "backup", f"{self.inside}/backup")
        end_dump(host, self.container, inner, self.on_host, self.docker, self.as_root)


def wait_until_ready(
    host: Host, container: str, docker: tuple[str, ...], limit_s: float = READY_LIMIT_S
) -> None:
    """Wait until `influx ping` is answered; raises StepFailed where it is not in time."""
    deadline = time.monotonic() + limit_s
    while (told := host.run(run_in(docker, container, "ready"))).exit_code:
        if time.monotonic() > deadline:
            raise StepFailed(
                f"InfluxDB in container {container} does not answer `influx ping` within "
                f"{limit_s:g} s: {told.last_words}. Look at `docker logs {container}`."
            )
        time.sleep(READY_PAUSE_S)


@dataclass(frozen=True, slots=True)
class SweepInflux2:
    """Sweep a dump into one plain tar and check every file that its manifest names."""

    output: File
    tar: tuple[str, ...]
    container: str
    version: str
    data: str
    """Its folder of data as seen from the stack."""
    limit_s: float

    def commands(self) -> tuple[str, ...]:
        """Return the tar as a person would type it."""
        return (f"{self._command} > '{self.output.partial}'", "check every file of its manifest")

    @property
    def _command(self) -> Command:
        return Command((*self.tar, "."), limit_s=self.limit_s)

    def do(self, scene: Scene) -> None:
        """Write the tar under its partial name; raises StepFailed where the dump is not whole."""
        scene.say("checking every shard")
        check = Influx2Check()
        sweep(scene, self.output, self._command, check.add)
        report = check.report()
        if report.problems:
            raise StepFailed(
                f"The dump of container {self.container} is not whole: "
                + " ".join(report.problems),
                again=True,
            )
        told = {"container": self.container, "version": self.version, "data": self.data}
        scene.learn(self.output, **told, **facts_of(report))


def dump_of(
    facts: Influx2Facts, runtag: str, as_root: tuple[str, ...], limit_s: float
) -> DumpInflux2:
    """Return the step that dumps a container for a backup of that name."""
    return DumpInflux2(
        host_role="pi",
        container=facts.container,
        on_host=posixpath.join(facts.backup_on_host, runtag),
        inside=f"{BACKUP_INSIDE}/{runtag}",
        data=facts.data_on_host,
        config=facts.config_on_host,
        as_root=as_root,
        limit_s=limit_s,
    )
