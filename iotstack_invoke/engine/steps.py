"""What a step is, and what it may use while it acts. Holds no step of any service.

A step is a frozen value: it says the commands that it will run, and does them when it is told.
One that changes state also knows its undo. The dry run prints steps, the engine does them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Protocol, runtime_checkable

from ..core.dataclass import dataclass
from ..hosts.base import PARTIAL, Command, Disk, Host, Storage


@dataclass(frozen=True, slots=True)
class File:
    """One file or folder of a role: `pi:backups/x.tar` with the root that the role is bound to.

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
        """Whether it is a folder; the undo of what made it removes it, not the engine."""
        return self.path.endswith("/")

    @property
    def partial(self) -> str:
        """The path on its machine while the file is being made."""
        return self.absolute + PARTIAL


@dataclass(frozen=True, slots=True)
class Space:
    """What is free on a disk, and what of it no other job is about to write."""

    free_bytes: int = 0
    left_bytes: int = 0


LACKING = "failed"
"""The fact of an output that lacks something: what, and why."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a finished output: written before the file gets its final name."""

    output: str
    size_bytes: int = 0
    sha256: str = ""
    seconds: float = 0.0
    parameters: str = ""
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        """Whether something is lacking in it, so that a later run makes it again."""
        return bool(self.facts.get(LACKING))


class StepContext(Protocol):
    """What a step may use while it acts."""

    @property
    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        """What the steps of this attempt noted, by file."""
        ...

    def storage(self, file: File) -> Storage:
        """Return the place of a file's role."""
        ...

    def host(self, role: str) -> Host:
        """Return the host that a role is bound to."""
        ...

    def log_output(self, stream: str, line: str) -> None:
        """Put one line that a program said into the log."""
        ...

    def status(self, text: str) -> None:
        """Tell a person what is going on now; raises Interrupted when the run is to end."""
        ...

    def warn(self, text: str) -> None:
        """Note a warning: it goes to the log, the manifest, the summary and the exit code."""
        ...

    def set_total(self, size_bytes: int) -> None:
        """Tell how many bytes there are to move, for the progress."""
        ...

    def advance(self, size_bytes: int) -> None:
        """Tell that so many more bytes were moved; raises Interrupted when the run is to end."""
        ...

    def reserve(
        self, look: Callable[[], Disk | None], size_bytes: int, *, for_all: bool = False
    ) -> Space | None:
        """Keep space on a disk for what the job will write there, until it ends.

        Nothing is kept where less is left, or where nobody can say (None). `for_all`: it is kept
        until the run ends, since another job writes it.
        """
        ...

    def record(self, output: File, **facts: Any) -> None:
        """Note facts of an output for its record: `size_bytes`, `sha256`, and others."""
        ...

    def records(self) -> Mapping[str, Record]:
        """Return the records of all outputs that are finished, by output."""
        ...

    def failures(self) -> Mapping[str, str]:
        """Return why outputs of this run were not made, by output."""
        ...

    def once(self, what: str, act: Callable[[], None]) -> None:
        """Do something that holds for all jobs of a run, unless another has; not for hours."""
        ...


STEP_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class HostAccess:
    """How a step reaches its host: the role of that, and how commands are run there."""

    role: str
    as_root: tuple[str, ...] = ()
    """The words before a command that needs root."""
    docker: tuple[str, ...] = ("docker",)
    """The words before a command of Docker."""
    guard: str = ""
    """The lock that commands hold which change something; '' where no undo waits for them."""

    def host(self, context: StepContext) -> Host:
        """Return the host itself."""
        return context.host(self.role)

    def guarded(self, *argv: str, timeout_s: float = STEP_LIMIT_S) -> Command:
        """Return a command that holds the host's shared lock while it runs.

        One that outlives the program that sent it is waited for before anything is undone.
        """
        lock = ("flock", "--shared", self.guard) if self.guard else ()
        return Command((*lock, *argv), timeout_s=timeout_s)

    def guarded_root(self, *argv: str, timeout_s: float = STEP_LIMIT_S) -> Command:
        """Return the same for a command that needs root."""
        return self.guarded(*self.as_root, *argv, timeout_s=timeout_s)

    def guarded_docker(self, *argv: str, timeout_s: float = STEP_LIMIT_S) -> Command:
        """Return the same for a command of Docker."""
        return self.guarded(*self.docker, *argv, timeout_s=timeout_s)

    def removal(self, folder: str) -> Command:
        """Return the command that removes a folder with all that is in it, if it is there."""
        return self.guarded_root("rm", "-rf", "--", folder)


@runtime_checkable
class Step(Protocol):
    """One thing to do."""

    def commands(self) -> tuple[str, ...]:
        """Return what will be run, as a person could type it."""
        ...

    def do(self, context: StepContext) -> None:
        """Do it. Raises StepFailed."""
        ...


@runtime_checkable
class UndoableStep(Step, Protocol):
    """One thing to do that can be undone; all its other fields are plain strings and numbers.

    The undo must be right whether the step acted, acted half or did not act, and must not mind
    being done twice.
    """

    access: HostAccess

    def undo(self, host: Host) -> str | None:
        """Put back what was before; return what a person is to be told of it, if anything."""
        ...


@runtime_checkable
class LeavingStep(Step, Protocol):
    """One thing to do that may go on when all programs of ours have ended: in a container."""

    def end_left(self, context: StepContext) -> None:
        """End what goes on of it; where that cannot be done, a later run does it."""
        ...


@runtime_checkable
class ClaimingStep(Step, Protocol):
    """One thing that makes sure that the job's outputs are ours, before any other step acts.

    Until it is done, what lies under their partial names may be another machine's.
    """

    claim: str


@dataclass(frozen=True, slots=True)
class HostStep:
    """What all steps have that act on one host."""

    access: HostAccess

    def commands(self) -> tuple[str, ...]:
        """Return nothing: a step that runs no command, or none that a person would type."""
        return ()


@dataclass(frozen=True, slots=True)
class CommandStep(HostStep):
    """A step that runs one command."""

    @property
    def command(self) -> Command:
        """The command."""
        raise NotImplementedError

    def commands(self) -> tuple[str, ...]:
        """Return the command as a person would type it."""
        return (str(self.command),)

    def do(self, context: StepContext) -> None:
        """Run it; raises StepFailed."""
        self.access.host(context).run(self.command, context.log_output)


@dataclass(frozen=True, slots=True)
class UndoneByCommand(HostStep):
    """A step whose undo is one command."""

    @property
    def undo_command(self) -> Command:
        """The command that puts back what was before."""
        raise NotImplementedError

    def undo(self, host: Host) -> None:
        """Run it; raises StepFailed."""
        host.run(self.undo_command)


@dataclass(frozen=True, slots=True)
class Commit:
    """The point of no return of a transaction: what came before is no longer undone.

    `keep` names a file that the journal becomes, so that all of it can still be undone later.
    """

    keep: str = ""

    def commands(self) -> tuple[str, ...]:
        """Return nothing: it is no command."""
        return ()

    def do(self, context: StepContext) -> None:
        """Do nothing: the engine forgets the journal here."""


COMMIT = Commit()
