"""Our own containers, in which a server works on data unreachable for clients.

The packages of the servers define what they run, and on which data.
"""

from __future__ import annotations

import time

from ..core import processes
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import HostAccess, HostStep, StepContext
from ..hosts.base import Command, Host
from .stop_start import STOP_LIMIT_S

OUR_LABEL = "iotstack-invoke=alone"
"""The label of our own containers: others are never removed."""
REMOVE_LIMIT_S = 30.0
REMOVE_PAUSE_S = 0.3


def remove_ours(host: Host, access: HostAccess, name: str) -> None:
    """Remove a container, whether it runs or not, if it is ours.

    Also removes its anonymous volumes; volumes of other containers are in use there.
    """
    chosen = ("--filter", f"name=^/?{name}$", "--filter", f"label={OUR_LABEL}")
    listed = Command((*access.docker, "ps", "--all", "--quiet", *chosen))
    deadline = time.monotonic() + REMOVE_LIMIT_S
    said = ""
    while found := host.run(listed).out.split():
        if said and time.monotonic() > deadline:
            raise StepFailed(f"Container {name} cannot be removed: {said}")
        words = ("rm", "--force", "--volumes", *found)
        command = access.guarded_docker(*words, timeout_s=STOP_LIMIT_S)
        # An interrupted removal continues in the engine: then this one is refused.
        told = host.run(command.accepting(0, 1))
        said = told.last_line
        processes.pause(REMOVE_PAUSE_S if told.exit_code else 0)


@dataclass(frozen=True, slots=True)
class RemoveIsolated(HostStep):
    """Stop the isolated server, so that it writes its data, and remove its container."""

    alone: str

    def commands(self) -> tuple[str, ...]:
        """Return the commands."""
        return tuple(map(str, self._commands))

    @property
    def _commands(self) -> tuple[Command, ...]:
        both = (("stop", "--time", "60", self.alone), ("rm", "--volumes", self.alone))
        return tuple(self.access.guarded_docker(*e, timeout_s=STOP_LIMIT_S) for e in both)

    def do(self, context: StepContext) -> None:
        """Stop and remove it."""
        for command in self._commands:
            self.access.host(context).run(command)
