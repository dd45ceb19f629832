"""Stops containers before a change and starts them afterwards; each step has its undo."""

from __future__ import annotations

import shlex

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import CommandStep, HostAccess, StepContext
from ..hosts.base import Command, Host
from .compose import compose_words, inspected
from .up import not_up

STOP_LIMIT_S = 600.0
START_LIMIT_S = 600.0
STOPPING = "stopping "
"""How the status of stopping containers begins."""
RUNNING_FORM = "{{if .State.Running}}{{.Name}}{{end}}"


def wait_for_orphans(host: Host, guard: str) -> None:
    """Wait until no command of a killed run is left; raises StepFailed on timeout."""
    words = ("flock", "--exclusive", "--timeout", str(int(STOP_LIMIT_S)), guard, "true")
    try:
        host.run(Command(words, timeout_s=STOP_LIMIT_S + 10))
    except StepFailed as error:
        raise StepFailed(
            f"On {host.name} a command of an earlier run is still running (it holds {guard}). "
            "Wait until it ends, then run this again."
        ) from error


def _stop(access: HostAccess, names: tuple[str, ...]) -> Command:
    return access.guarded_docker("stop", "--time", "60", *names, timeout_s=STOP_LIMIT_S)


def _start(access: HostAccess, names: tuple[str, ...]) -> Command:
    """Return the command that starts them; exit 1 means that some could not be started."""
    return access.guarded_docker("start", *names, timeout_s=START_LIMIT_S).accepting(0, 1)


def _those_there(host: Host, docker: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return ()
    form = ("inspect", "--type", "container", "--format", "{{.Name}}")
    told = inspected(host, (*docker, *form, *names)).split()
    return tuple(name for name in names if f"/{name}" in told)


def _compose_words(host: Host, docker: tuple[str, ...]) -> str:
    """Return the command of compose on that host, as text; the plugin's if there is none."""
    try:
        return shlex.join(compose_words(host, docker))
    except StepFailed:
        return "docker compose"


@dataclass(frozen=True, slots=True)
class ContainersStep(CommandStep):
    """A step that runs one command for containers; without containers it does nothing."""

    names: tuple[str, ...]

    def commands(self) -> tuple[str, ...]:
        """Return the command as a person would type it."""
        return (str(self.command),) if self.names else ()


@dataclass(frozen=True, slots=True)
class StopContainers(ContainersStep):
    """Stop running containers. Undo starts them again, in the order in which they started."""

    journaled_as = "StopContainers"

    @property
    def command(self) -> Command:
        """The command."""
        return _stop(self.access, self.names)

    def do(self, context: StepContext) -> None:
        """Stop them, all at once; each has a minute to save its data."""
        if self.names:
            context.status(f"{STOPPING}{', '.join(self.names)}; each may take a minute")
            self.access.host(context).run(self.command)

    def undo(self, host: Host) -> str:
        """Start them, and return a message about those that could not be started; '' for none.

        They are stopped first: after a power cut Docker itself may have started some, on the
        data that was swapped in. One that was removed, or that cannot be started, does not
        prevent the others from starting.
        """
        names = _those_there(host, self.access.docker, self.names)
        told: tuple[str, ...] = ()
        if names:
            host.run(_stop(self.access, names))
            if host.run(_start(self.access, names)).exit_code:
                told = not_up(host, self.access.docker, names)
        gone = ", ".join(name for name in self.names if name not in names)
        if gone:
            compose = _compose_words(host, self.access.docker)
            why = (
                f"Not running as before, because they were removed: {gone} (`docker compose "
                "down` removes containers). To create and start them, in the folder of the "
                f"stack: {compose} up -d"
            )
            told = (*told, why)
        return " ".join(told)


@dataclass(frozen=True, slots=True)
class StartContainers(ContainersStep):
    """Start containers that existed before; WaitForContainers reports those that are not up.

    Undo stops them.
    """

    journaled_as = "StartContainers"

    @property
    def command(self) -> Command:
        """The command."""
        return _start(self.access, self.names)

    def do(self, context: StepContext) -> None:
        """Start them in the order of their names."""
        if self.names:
            self.access.host(context).run(self.command)

    def undo(self, host: Host) -> None:
        """Stop those that still exist.

        Raises StepFailed if one keeps running: the next steps put files back under it.
        """
        names = _those_there(host, self.access.docker, self.names)
        if names:
            host.run(_stop(self.access, names))


@dataclass(frozen=True, slots=True)
class CheckStopped(ContainersStep):
    """Check that the stopped containers are still stopped: they would use the moved files."""

    @property
    def command(self) -> Command:
        """The command."""
        return Command((*self.access.docker, "inspect", "--format", RUNNING_FORM, *self.names))

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if some are running, with their names."""
        if not self.names:
            return
        told = self.access.host(context).run(self.command).out.split()
        running = [name.lstrip("/") for name in told if name.startswith("/")]
        if running:
            raise StepFailed(
                f"Started meanwhile, by hand or by Docker: {', '.join(running)}. New data there "
                "would be lost. Run this again, and do not start containers until it ends."
            )
