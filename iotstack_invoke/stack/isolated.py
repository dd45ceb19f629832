"""Containers of our own, in which a server works on data where no client reaches it.

What they run, and on which data, is told by the server's own room.
"""

from __future__ import annotations

import time

from ..core import processes
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import StepContext
from ..hosts.base import Command, Host
from .stack import STOP_LIMIT_S, guarded

OUR_LABEL = "iotstack-invoke=alone"
"""What our own containers bear: none of another's is ever removed."""
REMOVE_LIMIT_S = 30.0
REMOVE_PAUSE_S = 0.3


def remove_ours(host: Host, name: str, docker: tuple[str, ...], guard: str) -> None:
    """Remove a container, whether it runs or not, if it is ours.

    With the volumes that it has for itself; those of other containers are in use there.
    """
    chosen = ("--filter", f"name=^/?{name}$", "--filter", f"label={OUR_LABEL}")
    listed = Command((*docker, "ps", "--all", "--quiet", *chosen))
    deadline = time.monotonic() + REMOVE_LIMIT_S
    said = ""
    while found := host.run(listed).out.split():
        if said and time.monotonic() > deadline:
            raise StepFailed(f"Container {name} cannot be removed: {said}")
        words = (*docker, "rm", "--force", "--volumes", *found)
        command = guarded(guard, words, STOP_LIMIT_S)
        # A removal that was broken off goes on in the engine: then this one is refused.
        told = host.run(Command(command.argv, frozenset({0, 1}), command.timeout_s))
        said = told.last_line
        processes.pause(REMOVE_PAUSE_S if told.exit_code else 0)


@dataclass(frozen=True, slots=True)
class RemoveIsolated:
    """Let the server that ran alone put its data away, and remove its container."""

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
        remove = (*self.docker, "rm", "--volumes", self.alone)
        return tuple(guarded(self.guard, words, STOP_LIMIT_S) for words in (stop, remove))

    def do(self, context: StepContext) -> None:
        """Stop and remove it."""
        for command in self._commands:
            context.host(self.host_role).run(command)
