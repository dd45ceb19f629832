"""One run, as notifications describe it: its task, its end, its last messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum

from ..core.dataclass import dataclass
from ..core.errors import ExitCode
from ..reporting.report import as_called, duration_text

KILLED = -9
"""The exit code of a run without an end: it was killed, or the machine lost power."""


class Outcome(Enum):
    """How a run ended, as notifiers know it."""

    GOOD = "success"
    WARNINGS = "warning"
    FAILED = "failure"


ENDINGS: Mapping[int, str] = {
    ExitCode.GOOD: "done",
    ExitCode.WARNINGS: "finished with warnings",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "failed: the command line or the settings are wrong",
    ExitCode.NOT_FOUND: "failed: no such backup",
    ExitCode.BUSY: "did not begin: another run is active",
    ExitCode.REFUSED: "was refused before anything was changed",
    KILLED: "did not end: it was killed, or the machine was switched off",
}
MINUTE_S = 60
STOPPED_FROM = 128
"""Exit codes above it: a signal stopped the run."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One run that ended, or that was found dead. Times are aware."""

    task: str
    host: str
    """The machine that it worked on."""
    began: datetime
    ended: datetime
    exit_code: int
    messages: tuple[str, ...] = ()
    """Its warnings and failures, oldest first. They hold no secrets."""

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        if self.exit_code == ExitCode.GOOD:
            return Outcome.GOOD
        return Outcome.WARNINGS if self.exit_code == ExitCode.WARNINGS else Outcome.FAILED

    @property
    def title(self) -> str:
        """One line for people, such as `backup of pi failed`."""
        stopped = self.exit_code > STOPPED_FROM
        ending = "was stopped" if stopped else ENDINGS.get(self.exit_code, ENDINGS[1])
        return f"{self.task} of {self.host} {ending}"

    @property
    def text(self) -> str:
        """The title, the messages, and how long it took; lines end without a newline."""
        began = f"{self.began.astimezone():%Y-%m-%d %H:%M}"
        if self.exit_code == KILLED:
            left = as_called("To see what it left: inv status")
            return "\n".join((*self.messages, f"It began at {began}. {left}"))
        took = _took((self.ended - self.began).total_seconds())
        code = f", exit code {self.exit_code}" if self.exit_code else ""
        return "\n".join((*self.messages, f"It began at {began} and took {took}{code}."))


def _took(seconds: float) -> str:
    """Return a duration of which only whole seconds are known."""
    if seconds < 1:
        return "less than 1 s"
    return f"{seconds:.0f} s" if seconds < MINUTE_S else duration_text(seconds)
