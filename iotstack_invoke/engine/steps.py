"""What a step is, and what it may use while it runs. Contains no step of any service.

A step is a frozen value: it lists the commands that it will run, and runs them on request. One
that changes state also has an undo. The dry run prints steps, the engine runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Protocol, runtime_checkable

from ..core.dataclass import dataclass
from ..hosts.base import PARTIAL, Command, Disk, Host, Storage


@dataclass(frozen=True, slots=True)
class File:
    """One file or folder of a role: `pi:backups/x.tar`, with the root that the role is bound to.

    The path of a folder ends with a slash.
    """

    role: str
    path: str
    root: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.role}:{self.path}"

    def __lt__(self, other: File) -> bool:
        return (self.role, self.path) < (other.role, other.path)

    @property
    def absolute(self) -> str:
        """The path on its machine."""
        path = self.path.rstrip("/")
        return f"{self.root.rstrip('/')}/{path}" if self.root else path

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder; it is removed by the undo of its step, not by the engine."""
        return self.path.endswith("/")

    @property
    def partial(self) -> str:
        """The path on its machine while the file is being made."""
        return self.absolute + PARTIAL


@dataclass(frozen=True, slots=True)
class Space:
    """The free space of a disk, and the part of it that no other job is about to write."""

    free_bytes: int = 0
    left_bytes: int = 0


LACKING = "failed"
"""The fact of an incomplete output: what is missing, and why."""


@dataclass(frozen=True, slots=True)
class Record:
    """The facts of a finished output: written before the file gets its final name."""

    output: str
    size_bytes: int = 0
    sha256: str = ""
    seconds: float = 0.0
    parameters: str = ""
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        """Whether something is missing in it, so that a later run makes it again."""
        return bool(self.facts.get(LACKING))


class StepContext(Protocol):
    """What a step may use while it runs."""

    @property
    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        """The facts recorded by the steps of this attempt, by file."""
        ...

    def storage(self, file: File) -> Storage:
        """Return the storage of a file's role."""
        ...

    def host(self, role: str) -> Host:
        """Return the host that a role is bound to."""
        ...

    def log_output(self, stream: str, line: str) -> None:
        """Write one line of a program's output to the log."""
        ...

    def status(self, text: str) -> None:
        """Show the current activity to the user; raises Interrupted if the run is to end."""
        ...

    def warn(self, text: str) -> None:
        """Record a warning: it goes to the log, the manifest, the summary and the exit code."""
        ...

    def set_total(self, size_bytes: int) -> None:
        """Set the number of bytes to transfer, for the progress display."""
        ...

    def advance(self, size_bytes: int) -> None:
        """Add to the number of transferred bytes; raises Interrupted if the run is to end."""
        ...

    def reserve(
        self, look: Callable[[], Disk | None], size_bytes: int, *, for_all: bool = False
    ) -> Space | None:
        """Reserve space on a disk for what the job will write there, until it ends.

        Reserves nothing if less is left, or if that is unknown (None). `for_all`: reserved until
        the run ends, since another job writes it.
        """
        ...

    def record(self, output: File, **facts: Any) -> None:
        """Record facts of an output: `size_bytes`, `sha256`, and others."""
        ...

    def records(self) -> Mapping[str, Record]:
        """Return the records of all finished outputs, by output."""
        ...

    def failures(self) -> Mapping[str, str]:
        """Return why outputs of this run were not made, by output."""
        ...

    def once(self, what: str, act: Callable[[], None]) -> None:
        """Do something once for all jobs of a run, unless another has; not for work of hours."""
        ...


STEP_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class HostAccess:
    """How a step reaches its host: the host's role, and the prefixes of commands there."""

    role: str
    as_root: tuple[str, ...] = ()
    """The prefix of a command that needs root."""
    docker: tuple[str, ...] = ("docker",)
    """The prefix of a Docker command."""
    guard: str = ""
    """The lock that changing commands hold; '' if no undo waits for them."""

    def host(self, context: StepContext) -> Host:
        """Return the host itself."""
        return context.host(self.role)

    def guarded(self, *argv: str, timeout_s: float = STEP_LIMIT_S) -> Command:
        """Return a command that holds the host's shared lock while it runs.

        An undo waits for a command that outlives the program that sent it.
        """
        lock = ("flock", "--shared", self.guard) if self.guard else ()
        return Command((*lock, *argv), timeout_s=timeout_s)

    def guarded_root(self, *argv: str, timeout_s: float = STEP_LIMIT_S) -> Command:
        """Return the same for a command that needs root."""
        return self.guarded(*self.as_root, *argv, timeout_s=timeout_s)

    def guarded_docker(self, *argv: str, timeout_s: float = STEP_LIMIT_S) -> Command:
        """Return the same for a Docker command."""
        return self.guarded(*self.docker, *argv, timeout_s=timeout_s)

    def removal(self, folder: str) -> Command:
        """Return the command that removes a folder with its content, if it exists."""
        return self.guarded_root("rm", "-rf", "--", folder)


@runtime_checkable
class Step(Protocol):
    """One action of a job."""

    def commands(self) -> tuple[str, ...]:
        """Return the commands that it will run, as a user could type them."""
        ...

    def do(self, context: StepContext) -> None:
        """Do it. Raises StepFailed."""
        ...


@runtime_checkable
class UndoableStep(Step, Protocol):
    """A step that can be undone; all its other fields are plain strings and numbers.

    The undo must be right whether the step was completed, interrupted or not started, and may run
    twice.
    """

    access: HostAccess

    def undo(self, host: Host) -> str | None:
        """Restore the previous state; return a sentence for the user, if any."""
        ...


@runtime_checkable
class LeavingStep(Step, Protocol):
    """A step whose effect may continue after all our programs have ended: in a container."""

    def end_left(self, context: StepContext) -> None:
        """End what still runs of it; if that fails, a later run does it."""
        ...


@runtime_checkable
class ClaimingStep(Step, Protocol):
    """A step that claims the job's outputs, before any other step runs.

    Until then, partial files under their names may be another machine's.
    """

    claim: str


@dataclass(frozen=True, slots=True)
class HostStep:
    """The base of steps that act on one host."""

    access: HostAccess

    def commands(self) -> tuple[str, ...]:
        """Return nothing: the step runs no command, or none that a user would type."""
        return ()


@dataclass(frozen=True, slots=True)
class CommandStep(HostStep):
    """A step that runs one command."""

    @property
    def command(self) -> Command:
        """The command."""
        raise NotImplementedError

    def commands(self) -> tuple[str, ...]:
        """Return the command as a user would type it."""
        return (str(self.command),)

    def do(self, context: StepContext) -> None:
        """Run it; raises StepFailed."""
        self.access.host(context).run(self.command, context.log_output)


@dataclass(frozen=True, slots=True)
class UndoneByCommand(HostStep):
    """A step whose undo is one command."""

    @property
    def undo_command(self) -> Command:
        """The command that restores the previous state."""
        raise NotImplementedError

    def undo(self, host: Host) -> None:
        """Run it; raises StepFailed."""
        host.run(self.undo_command)


@dataclass(frozen=True, slots=True)
class Commit:
    """The point of no return of a transaction: earlier steps are no longer undone.

    `keep` names a file that the journal is renamed to, so that all of it can still be undone
    later.
    """

    keep: str = ""

    def commands(self) -> tuple[str, ...]:
        """Return nothing: it runs no command."""
        return ()

    def do(self, context: StepContext) -> None:
        """Do nothing: the engine clears the journal here."""


COMMIT = Commit()
