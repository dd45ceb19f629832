"""Asks a person at a terminal: with questionary if it is installed, or with numbered choices."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...core.errors import Refused, UsageError
from ...reporting.report import Report
from ...reporting.wrapping import answer_to

MOST_TRIES = 5
NOTHING_WRITTEN = "No valid answer. Nothing was written."

Check = Callable[[str], object]
"""Raises UsageError for a text that is no answer."""
Choice = tuple[str, str]
"""An answer, and how it is shown."""


class Dialog(Protocol):
    """What can be asked. Ctrl-C raises Interrupted or KeyboardInterrupt."""

    def choose(self, question: str, choices: Sequence[Choice], default: str) -> str:
        """Return the chosen answer."""

    def text(self, question: str, default: str, check: Check) -> str:
        """Return a typed text that the check accepts."""

    def agrees(self, question: str) -> bool:
        """Return whether the answer is yes, which Enter means too."""


def open_dialog(report: Report) -> Dialog | None:
    """Return what asks at the terminal; None if there is none."""
    if not sys.stdin.isatty():
        return None
    is_plain = os.environ.get("TERM", "dumb") == "dumb" or not os.isatty(1)
    if is_plain or importlib.util.find_spec("questionary") is None:
        return PlainDialog(report)
    return MenuDialog()


class PlainDialog:
    """Numbered choices, for any terminal."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def choose(self, question: str, choices: Sequence[Choice], default: str) -> str:
        """Return the answer whose number is typed."""
        answers = [answer for answer, _ in choices]
        first = answers.index(default) + 1
        self._report.write(f"\n{question}")
        for number, (_, shown) in enumerate(choices, 1):
            self._report.write(f"  {number}  {shown}")

        def check(text: str) -> None:
            if text not in map(str, range(1, len(choices) + 1)):
                raise UsageError(f"Type a number from 1 to {len(choices)}.")

        return answers[int(self.text("Number", str(first), check)) - 1]

    def text(self, question: str, default: str, check: Check) -> str:
        """Return a typed line; Enter means the default."""
        for _ in range(MOST_TRIES):
            answer = answer_to(f"{question}{f' [{default}]' if default else ''}: ").strip()
            try:
                check(answer or default)
            except UsageError as error:
                self._report.write(str(error))
                continue
            return answer or default
        raise Refused(NOTHING_WRITTEN)

    def agrees(self, question: str) -> bool:
        """Return whether yes is typed, or nothing."""
        for _ in range(MOST_TRIES):
            answer = answer_to(f"{question} [Y/n] ").strip().lower()
            if answer in ("", "y", "yes", "n", "no"):
                return answer in ("", "y", "yes")
            self._report.write("Type y or n.")
        raise Refused(NOTHING_WRITTEN)


class MenuDialog:
    """Lists to choose from with the arrow keys."""

    def __init__(self) -> None:
        import questionary

        self._questionary: Any = questionary

    def choose(self, question: str, choices: Sequence[Choice], default: str) -> str:
        """Return the answer that is chosen in a list."""
        listed = [self._questionary.Choice(shown, value) for value, shown in choices]
        asked = self._questionary.select(question, choices=listed, default=default)
        return str(_answer(asked))

    def text(self, question: str, default: str, check: Check) -> str:
        """Return a typed line, which begins with the default."""

        def validate(text: str) -> bool | str:
            try:
                check(text.strip())
            except UsageError as error:
                return str(error)
            return True

        asked = self._questionary.text(question, default=default, validate=validate)
        return str(_answer(asked)).strip()

    def agrees(self, question: str) -> bool:
        """Return whether the answer is yes."""
        return bool(_answer(self._questionary.confirm(question)))


def _answer(asked: Any) -> Any:
    """Return the answer to a question of questionary; raises Refused for Ctrl-D."""
    try:
        return asked.unsafe_ask()
    except EOFError:
        raise Refused(NOTHING_WRITTEN) from None
