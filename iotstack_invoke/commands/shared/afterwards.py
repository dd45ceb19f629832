"""Work after a commit: each task runs even if others failed.

A failure there does not mean that the change failed: it is reported as left to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...core.errors import ExitCode, Interrupted, IotstackError
from ...core.processes import signals_let_in, signals_put_off
from ...environment.hooks import HooksResult, Occasion
from ...hosts.local import words_of
from ...settings.model import Hook

Told = TypeVar("Told")


class Afterwards:
    """The tasks after a commit, and those that failed."""

    def __init__(self) -> None:
        self.left: list[str] = []
        """What was not done, a text each."""
        self.stopped: Interrupted | None = None

    def do(self, what: str, act: Callable[[], Told], otherwise: Told) -> Told:
        """Run a task and return its result; if it fails, note that and return `otherwise`."""
        try:
            with signals_let_in():
                return act()
        except (IotstackError, OSError) as error:
            self.note(what, error)
            return otherwise

    def note(self, what: str, error: BaseException) -> None:
        """Note that a task was not completed."""
        if isinstance(error, Interrupted):
            self.stopped = error
        why = words_of(error) if isinstance(error, OSError) else str(error)
        self.left.append(f"{what}: {why}")

    def run_hooks(self, hooked: Occasion, hooks: tuple[Hook, ...], went: str) -> HooksResult:
        """Run the hooks, each even if those before it failed."""
        results = [
            self.do(
                "A hook after it did not end",
                lambda one=hook: hooked.run_after([one], went),  # type: ignore[misc]
                HooksResult(),
            )
            for hook in hooks
        ]
        return HooksResult(
            tuple(text for each in results for text in each.failures),
            tuple(text for each in results for text in each.warnings),
        )

    def told(self) -> tuple[str, ...]:
        """Return what was not done; if nothing, the message of a signal between two tasks."""
        came = signals_put_off()
        if came and not self.stopped:
            self.stopped = Interrupted(came[0])
            self.left.append(f"It was {self.stopped}; the remaining steps were still done")
        return tuple(self.left)

    def code(self, code: int) -> int:
        """Return the exit code of a change that ends with `code`, unless something is left."""
        if self.stopped:
            return self.stopped.exit_code
        return ExitCode.WARNINGS if self.left and code == ExitCode.GOOD else code
