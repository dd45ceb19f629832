"""What happens to each container of a stack in a restore, by name, before and after it.

It is stopped and started again, created and started, left alone, or missing. Not for: why one does
not come up (stack/up.py).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace

from ...backups.manifest import Manifest
from ...core.dataclass import dataclass
from ...environment.stack_host import StackHost
from ...stack.compose import InspectedContainer, of_stack
from ...stack.compose_files import compose_reads
from ...stack.compose_needs import ComposeNeeds
from ...workflows.restore import RestoreFacts

OF_COMPOSE = re.compile(r"[^-_]+[-_](?P<service>.+)[-_]\d+")
"""The form of compose's names for containers without a name in the file."""


@dataclass(frozen=True, slots=True)
class Fates:
    """What happens to the containers of a stack."""

    again: tuple[str, ...] = ()
    """They are stopped, and started again."""
    idle: tuple[str, ...] = ()
    """They do not run, and are not started."""
    made: tuple[str, ...] = ()
    """They are created and started: the stack has no container, and all of it is brought up."""
    made_by: str = ""
    """The compose file that brings up everything."""
    data_only: tuple[str, ...] = ()
    """They are created for the loaded data, and not started."""
    absent: tuple[str, ...] = ()
    """They are missing: the compose file or the backup has them."""
    services: Mapping[str, str] = field(default_factory=dict)
    """The containers of the compose file that counts, each with its service."""

    @classmethod
    def of(
        cls,
        target: StackHost,
        manifest: Manifest | None,
        facts: RestoreFacts,
        asked: tuple[str, ...] | None,
        packed: ComposeNeeds | None,
        found: tuple[InspectedContainer, ...],
    ) -> Fates:
        """Return their state before anything is changed.

        `asked`: those of --only, the only ones that are reported as missing. `packed`: the
        contents of the backup's compose file, if that one counts. `found`: all containers.
        """
        if packed is None:
            reads = compose_reads(target.host, target.folder, target.as_root)
            started = (each for each in reads.services if each.starts)
            services = {each.container_name or each.name: each.name for each in started}
            file, are_all = "the compose file here", not reads.unread
        else:
            services = dict(packed.containers)
            file, are_all = "the backup's compose file", packed.are_all
        data_only = [each.server.container for each in facts.loads if not each.there]
        if facts.server and not facts.server_there:
            data_only.append(facts.server.container)
        fates = cls(facts.running, facts.idle, services=services)
        if facts.bare:
            file += "" if are_all else ", and others whose names are not known yet"
            fates = replace(fates, made=tuple(services), made_by=file)
        else:
            fates = replace(fates, data_only=tuple(data_only))
        if facts.bare and not are_all:
            return fates  # missing ones show when they are created
        told = [each.name for each in manifest.containers] if manifest else []
        wanted = [each for each in (*services, *told) if asked is None or each in asked]
        there = (*fates.made, *fates.data_only, *(each.container.name for each in found))
        return replace(fates, absent=_absent(wanted, there))

    def told_before(self) -> Iterator[str]:
        """Yield what will happen to them, a line each."""
        if self.made_by:
            made = ", ".join(self.made) or "all"
            yield f"no containers exist; creates and starts: {made} (of {self.made_by})"
        else:
            again = ", ".join(self.again) or "nothing (no container is running)"
            yield f"stops and restarts: {again}"
        if self.data_only:
            yield f"creates for its data, but does not start: {', '.join(self.data_only)}"
        if self.idle:
            yield f"not running, and not started: {', '.join(self.idle)}"
        if self.absent:
            yield f"missing, and not created: {', '.join(self.absent)}"

    def told_after(
        self, facts: RestoreFacts, folder: str, found: tuple[InspectedContainer, ...]
    ) -> Iterator[str]:
        """Yield what happened to them, by their present state `found`."""
        running = {each.container.name for each in found if each.container.running}
        if facts.bare:
            mine = [each.container.name for each in of_stack(found, folder, self.made)]
            up = ", ".join(each for each in mine if each in running)
            yield f"created and started, because no containers existed: {up or 'nothing'}"
        names = {each.container.name for each in found}
        if still := [each for each in self.idle if each in names - running]:
            yield f"stopped before, and still stopped: {_to_start(facts, still)}"
        well = {each.container.name for each in found if each.health == "healthy"}
        if left := [each for each in facts.sick if each in running - well]:
            yield f"unhealthy before, and still unhealthy: {', '.join(left)}"
        if made := [each for each in self.data_only if each in names - running]:
            yield f"created, but not started: {_to_start(facts, made)}"
        if absent := _absent(self.absent, names):
            told = f"missing before, and still missing: {', '.join(absent)}"
            services = [self.services[each] for each in absent if each in self.services]
            if services:
                up = shlex.join((*facts.compose, "up", "--detach", *services))
                told += f". To create {_them(services)}: {up}"
            others = [each for each in absent if each not in self.services]
            if others:
                told += f". The compose file here has no {', '.join(others)}"
            yield told


def _to_start(facts: RestoreFacts, names: list[str]) -> str:
    start = shlex.join((*facts.access.docker, "start", *names))
    return f"{', '.join(names)}. To start {_them(names)}: {start}"


def _them(names: list[str]) -> str:
    return "them" if len(names) > 1 else "it"


def _absent(wanted: Iterable[str], there: Iterable[str]) -> tuple[str, ...]:
    """Return which containers are missing, under whatever name compose gave them."""
    known = {*map(_service, there)}
    return tuple(dict.fromkeys(each for each in wanted if _service(each) not in known))


def _service(container: str) -> str:
    named = OF_COMPOSE.fullmatch(container)
    return named["service"] if named else container
