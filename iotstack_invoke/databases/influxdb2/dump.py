"""The part of an InfluxDB 2.x container: inspect, dump, verify, pack into one plain tar.

Experimental: written from the documentation, not tested with a real server. The part has the
layout of IOTstackBackup's, `config`, `data` without the engine and `backup`, so that its script
restores it; but `data` comes from the dump's own snapshots, not from the live files. InfluxDB 3
has no backup of its own: it is only recognised here.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ...backups.manifest import Manifest
from ...core import processes
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import File, HostAccess, StepContext
from ...hosts.base import ANY_EXIT, Command, Host, sh
from ...services.known import NO_BACKUP_OF_3
from ...stack.compose import InspectedContainer
from ...stack.inside import path_on_host
from ..influxdb.dump import DumpStep, influx_version, seen_on_host, sweep
from .check import EXPERIMENTAL, Influx2Check, facts_of, judge_lines, shard_of

DATA_INSIDE = "/var/lib/influxdb2"
CONFIG_INSIDE = "/etc/influxdb2"
BACKUP_INSIDE = "/var/lib/backup"
TEMPLATE_STORE = "volumes/influxdb2"
UNPACKED = "influxdb2-dump"
LOADED_INSIDE = "/influxdb2-dump"
READY_LIMIT_S = 120.0
READY_PAUSE_S = 0.5
FOLDERS = ("data", "config", "backup")
"""The three folders on the host in IOTstack's template."""
NO_TOKEN = 3
CANNOT_LOG_IN = "finds no token: not in its environment, and not in /etc/influxdb2/influx-configs"
LOG_IN_ADVICE = (
    "Give the container an operator token: INFLUX_TOKEN in its `environment` or `env_file`, and "
    "`docker compose up -d`"
)
_VERSION_3 = re.compile(r"\b3\.\d+\.\d+\b")


@dataclass(frozen=True, slots=True)
class Influx2Facts:
    """Facts about the InfluxDB 2 container, gathered before planning."""

    container: str
    version: str
    data_on_host: str
    """Its data folder; '' if no folder of the host is mounted there."""
    backup_on_host: str
    """Its folder for dumps; '' if that is only inside the container."""
    store: str = ""
    """The folder that holds its data, configuration and dumps, laid out as in IOTstack's template.
    """


@dataclass(frozen=True, slots=True)
class Influx2Look:
    """Facts about a running container: how to dump it, or why that is impossible."""

    facts: Influx2Facts | None = None
    error: str = ""
    """It should be dumped, and the dump would fail."""
    uncovered: str = ""
    """Why it cannot be dumped."""
    advice: str = ""


@cache
def _script() -> str:
    """Return the script that runs in the container."""
    with open(f"{os.path.dirname(__file__)}/influxdb2.sh", encoding="utf-8") as stream:
        return stream.read()


def run_in(docker: tuple[str, ...], container: str, *words: str, limit_s: float = 60.0) -> Command:
    """Return the command that queries or dumps in a container; any exit code is accepted."""
    called = (*docker, "exec", container)
    return Command(
        (*called, *sh(_script(), *words)),
        accept=ANY_EXIT,
        timeout_s=limit_s,
        label=shlex.join((*called, "influxdb2.sh", *words)),
    )


def server_version(host: Host, container: str, docker: tuple[str, ...] = ("docker",)) -> str:
    """Return the version of the InfluxDB in a container, whatever its image is called.

    The tag `latest` of its image has been each major version. Raises StepFailed if it prints none.
    """
    try:
        return influx_version(host, container, docker)
    except StepFailed:
        words = (*docker, "exec", container, "influxdb3", "--version")
        told = host.run(Command(words, accept=ANY_EXIT, timeout_s=30))
        if not told.exit_code and (found := _VERSION_3.search(told.out)):
            return found[0]
        raise


def gather_influx2(
    host: Host,
    found: InspectedContainer,
    as_root: tuple[str, ...] = (),
    docker: tuple[str, ...] = ("docker",),
) -> Influx2Look:
    """Return the facts that a dump of a running container needs, or why it cannot be dumped."""
    name = found.container.name
    try:
        version = server_version(host, name, docker)
        if version.startswith("1."):
            advice = f'Set it in hosts.toml: [influxdb] container = "{name}"'
            return Influx2Look(uncovered=f"it runs InfluxDB {version}", advice=advice)
        if version.startswith("3."):
            return Influx2Look(uncovered=NO_BACKUP_OF_3)
        facts = influx2_facts(host, found, version, as_root)
        told = host.run(run_in(docker, name, "token"))
    except StepFailed as error:
        return Influx2Look(error=str(error))
    if told.exit_code == NO_TOKEN:
        return Influx2Look(uncovered=f"`influx backup` {CANNOT_LOG_IN}", advice=LOG_IN_ADVICE)
    return Influx2Look(facts)


def influx2_facts(
    host: Host, found: InspectedContainer, version: str, as_root: tuple[str, ...] = ()
) -> Influx2Facts:
    """Return the data and dumps folders of a container; raises StepFailed."""
    name = found.container.name
    if not version.startswith("2.") or version.startswith("2.0."):
        raise StepFailed(
            f"Container {name} runs InfluxDB {version}; this part is for InfluxDB 2.1 and newer "
            "2.x. Its data are in no archive."
        )
    places = [path_on_host(found.mounts, each) for each in (DATA_INSIDE, CONFIG_INSIDE)]
    backup = seen_on_host(host, found, BACKUP_INSIDE, as_root)
    store, last = posixpath.split(places[0])
    as_template = last == "data" and [*places, backup] == [f"{store}/{each}" for each in FOLDERS]
    return Influx2Facts(name, version, places[0], backup, store if as_template else "")


def data_folders(found: Iterable[InspectedContainer]) -> tuple[str, ...]:
    """Return where containers map the data of an InfluxDB 2."""
    mounts = (mount for each in found for mount in each.mounts)
    return tuple(m.on_host for m in mounts if m.inside.rstrip("/") == DATA_INSIDE)


def places_by_hand(facts: Mapping[str, Any], manifest: Manifest | None) -> tuple[str, str]:
    """Return a part's folder as in IOTstack's template, and its data folder, '' for none.

    Both are shell words, relative to the folder of the stack. `facts` are those of the part:
    earlier versions supported the template only.
    """
    store, data = facts.get("store"), facts.get("data") or ""
    if store is None:
        return TEMPLATE_STORE, ""
    if data.startswith("../") and manifest:
        data = posixpath.normpath(posixpath.join(manifest.folder, data))
    return shlex.quote(store) if store else "", shlex.quote(data) if data else ""


def steps_by_hand(
    container: str, part: str, store: str = TEMPLATE_STORE, data: str = ""
) -> tuple[str, ...]:
    """Return the commands that restore a part by hand, in the folder of the stack.

    `part` is its file as a shell word. `store` holds its three folders, laid out as in IOTstack's
    template; without it all goes through Docker, and `data` is the data folder. If a command
    fails, the following ones do nothing.
    """
    ping = f"until docker exec {container} influx ping; do sleep 2; done"
    if store:
        steps = (
            f"docker compose stop {container}",
            *_aside(store),
            f"sudo tar -xf {part} -C {store} --same-owner",
            f"docker compose up -d {container}",
            ping,
            f"docker exec {container} influx restore {BACKUP_INSIDE} --full",
        )
    else:
        steps = (
            "docker compose up --no-start",
            f"docker stop {container}",
            *(_aside(data) if data else ()),
            f"sudo mkdir {UNPACKED} && sudo tar -xf {part} -C {UNPACKED} --same-owner",
            f"sudo docker cp --archive {UNPACKED}/data/. {container}:{DATA_INSIDE}",
            f"sudo docker cp --archive {UNPACKED}/config/. {container}:{CONFIG_INSIDE}",
            f"docker start {container}",
            ping,
            f"sudo docker cp {UNPACKED}/backup {container}:{LOADED_INSIDE}",
            f"docker exec {container} influx restore {LOADED_INSIDE} --full",
            f"docker exec {container} rm -rf {LOADED_INSIDE} && sudo rm -rf {UNPACKED}",
        )
    return (*(f"{each} &&" for each in steps[:-1]), steps[-1])


def _aside(folder: str) -> tuple[str, str]:
    """Return the commands that move a folder aside, to a free name, and create an empty one."""
    return (
        f'sudo mv -T {folder} {folder}.before-"$(date +%F-%H%M%S)"',
        f"sudo mkdir {folder}",
    )


@dataclass(frozen=True, slots=True)
class DumpInflux2(DumpStep):
    """Make influx write a dump of all buckets into a new folder, with what else a server needs."""

    journaled_as = "DumpInflux2"

    data: str = ""
    config: str = ""
    """Both as in journals of earlier versions."""

    @property
    def inner(self) -> tuple[str, ...]:
        """The arguments of the dump program inside the container."""
        return ("influx", "backup", f"{self.inside}/backup")

    @property
    def _command(self) -> Command:
        words = ("backup", f"{self.inside}/backup")
        return run_in(self.access.docker, self.container, *words, limit_s=self.limit_s)

    @property
    def _gather(self) -> Command:
        words = ("gather", self.inside)
        return run_in(self.access.docker, self.container, *words, limit_s=self.limit_s)

    def commands(self) -> tuple[str, ...]:
        """Return the dump command, and what is put beside the dump, as a user would type them."""
        return (self._command.shown, self._gather.shown)

    def do(self, context: StepContext) -> None:
        """Dump; raises StepFailed with its errors, or with the lines that it lacks."""
        host = self.access.host(context)
        context.status(EXPERIMENTAL)
        self.undo(host)  # a restore would load files of an earlier attempt
        limit_s = min(READY_LIMIT_S, self.limit_s)
        wait_until_ready(host, self.container, self.access.docker, limit_s)
        lines: list[str] = []

        def hear(stream: str, line: str) -> None:
            lines.append(line)
            context.log_output(stream, line)
            if (shard := shard_of(line)) is not None:
                context.status(f"shard {shard}")

        outcome = host.run(self._command, hear)
        verdict = judge_lines(lines, outcome.exit_code)
        if verdict.problems:
            raise StepFailed(
                f"influx backup in container {self.container} failed: "
                + " ".join(verdict.problems),
                again=verdict.again,
            )
        for warning in verdict.warnings:
            context.warn(warning)
        told = host.run(self._gather, context.log_output)
        if told.exit_code:
            raise StepFailed(
                f"The dump of container {self.container} is incomplete: {told.last_line}",
                again=True,
            )


def wait_until_ready(
    host: Host, container: str, docker: tuple[str, ...], limit_s: float = READY_LIMIT_S
) -> None:
    """Wait until `influx ping` succeeds; raises StepFailed if it does not in time."""
    deadline = time.monotonic() + limit_s
    while (told := host.run(run_in(docker, container, "ready"))).exit_code:
        if time.monotonic() > deadline:
            raise StepFailed(
                f"InfluxDB in container {container} does not answer `influx ping` within "
                f"{limit_s:g} s: {told.last_line}. Check `docker logs {container}`."
            )
        processes.pause(READY_PAUSE_S)


@dataclass(frozen=True, slots=True)
class SweepInflux2:
    """Pack a dump into one plain tar and verify every file that its manifest names."""

    output: File
    words: tuple[str, ...]
    """The command that writes the tar."""
    container: str
    version: str
    limit_s: float
    data: str = ""
    """Its data folder, relative to the stack; '' if none is mapped."""
    store: str = ""
    """The folder around all its folders, if they are laid out as in IOTstack's template."""

    def commands(self) -> tuple[str, ...]:
        """Return the tar command as a user would type it."""
        return (f"{self._command} > '{self.output.partial}'", "check every file of its manifest")

    @property
    def _command(self) -> Command:
        return Command(self.words, timeout_s=self.limit_s)

    def do(self, context: StepContext) -> None:
        """Write the tar under its partial name; raises StepFailed if the dump is incomplete."""
        context.status("checking every shard")
        check = Influx2Check()
        sweep(context, self.output, self._command, check.add)
        report = check.report()
        if report.problems:
            raise StepFailed(
                f"The dump of container {self.container} is incomplete: "
                + " ".join(report.problems),
                again=True,
            )
        told = {"container": self.container, "version": self.version, "data": self.data}
        told["store"] = self.store
        context.record(self.output, **told, **facts_of(report))


def dump_of(access: HostAccess, facts: Influx2Facts, runtag: str, limit_s: float) -> DumpInflux2:
    """Return the step that dumps a container for a backup of that name."""
    return DumpInflux2(
        access,
        container=facts.container,
        on_host=facts.backup_on_host and posixpath.join(facts.backup_on_host, runtag),
        inside=f"{BACKUP_INSIDE}/{runtag}",
        limit_s=limit_s,
    )
