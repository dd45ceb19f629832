"""What comes after a commit: each piece is done whatever became of the others.

Nothing that fails there says that the change did not happen: it is told as what is left.
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
    """The pieces of work after a commit, and what of them was not done."""

    def __init__(self) -> None:
        self.left: list[str] = []
        """What was not done, a text each."""
        self.stopped: Interrupted | None = None

    def do(self, what: str, act: Callable[[], Told], otherwise: Told) -> Told:
        """Do a piece and return what it gives; `otherwise`, and a note, where it fails."""
        try:
            with signals_let_in():
                return act()
        except (IotstackError, OSError) as error:
            self.note(what, error)
            return otherwise

    def note(self, what: str, error: BaseException) -> None:
        """Note that a piece was not done to its end."""
        if isinstance(error, Interrupted):
            self.stopped = error
        why = words_of(error) if isinstance(error, OSError) else str(error)
        self.left.append(f"{what}: {why}")

    def run_hooks(self, hooked: Occasion, hooks: tuple[Hook, ...], went: str) -> HooksResult:
        """Run the hooks, each whatever became of those before it."""
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
        """Return what was not done; if nothing is, what a signal met that came between two."""
        came = signals_put_off()
        if came and not self.stopped:
            self.stopped = Interrupted(came[0])
            self.left.append(f"It was {self.stopped}; the remaining steps were still done")
        return tuple(self.left)

    def code(self, code: int) -> int:
        """Return the exit code of a change that ends with `code` but for what is left."""
        if self.stopped:
            return self.stopped.exit_code
        return ExitCode.WARNINGS if self.left and code == ExitCode.GOOD else code
