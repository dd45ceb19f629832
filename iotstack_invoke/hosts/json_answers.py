"""JSON output of programs, read strictly: a value of another type than requested is StepFailed.

Another version, or another program of that name, may print anything. Not for: this package's own
files, where unreadable content is skipped or counts as damage.
"""

from __future__ import annotations

import json
import os

from ..core.errors import StepFailed

MOST_DIGITS = 18
MOST_NAME_LETTERS = 60
_KINDS = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def read_json(content: str | bytes, source: str) -> JsonAnswer:
    """Return an answer; raises StepFailed if it is not JSON. `source` names the program."""
    try:
        return JsonAnswer(json.loads(content), source)
    except RecursionError as error:
        raise StepFailed(f"Cannot read the answer of {source}: it is nested too deep.") from error
    except ValueError as error:
        raise StepFailed(f"Cannot read the answer of {source}: {error}.") from error


class JsonAnswer:
    """A value in an answer, read as the type that it must have.

    Each read raises StepFailed for a value of another type; the message omits the value, which may
    be a secret. For null or a missing value, the default is returned if one is given.
    """

    def __init__(self, value: object, source: str, where: str = "") -> None:
        self._value = value
        self._source = source
        self._where = where

    def __getitem__(self, key: str) -> JsonAnswer:
        """Return the member of an object by name; null for a member of null."""
        where = f"{self._where}.{ascii(key)[1:-1]:.{MOST_NAME_LETTERS}}"
        if self._value is None:
            return JsonAnswer(None, self._source, where)
        if not isinstance(self._value, dict):
            raise self._odd("an object")
        return JsonAnswer(self._value.get(key), self._source, where)

    def text(self, default: str | None = None) -> str:
        """Return a text that is safe as a path or as an argument of a command."""
        if self._value is None and default is not None:
            return default
        if not isinstance(self._value, str):
            raise self._odd("a text")
        try:
            is_odd = b"\0" in os.fsencode(self._value)
        except UnicodeEncodeError:
            is_odd = True
        if is_odd:
            raise self._odd("a text without odd characters")
        return self._value

    def number(self, default: int | None = None) -> int:
        """Return an integer."""
        if self._value is None and default is not None:
            return default
        if type(self._value) is not int:
            raise self._odd("a whole number")
        return self._value

    def digits(self, default: int | None = None) -> int:
        """Return the integer that a text holds; the default for null."""
        text = self.text(None if default is None else "")
        if not text and default is not None:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
            raise self._odd("a whole number")
        return int(text)

    def flag(self, *, default: bool | None = None) -> bool:
        """Return a boolean."""
        if self._value is None and default is not None:
            return default
        if not isinstance(self._value, bool):
            raise self._odd("a truth value")
        return self._value

    def items(self, count: int | None = None, *, or_none: bool = False) -> tuple[JsonAnswer, ...]:
        """Return the values of a list, of length `count` if given; () for null with `or_none`."""
        if self._value is None and or_none:
            return ()
        if not isinstance(self._value, list):
            raise self._odd("a list")
        if count not in (None, len(self._value)):
            raise self._odd(f"one of {count}")
        named = ((each, f"{self._where}[{number}]") for number, each in enumerate(self._value))
        return tuple(JsonAnswer(each, self._source, where) for each, where in named)

    def texts(self) -> tuple[str, ...]:
        """Return the texts of a list, () for null."""
        return tuple(each.text() for each in self.items(or_none=True))

    def entries(self) -> dict[str, JsonAnswer]:
        """Return the members of an object by name, {} for null."""
        if self._value is None:
            return {}
        if not isinstance(self._value, dict):
            raise self._odd("an object")
        return {JsonAnswer(key, self._source).text(): self[key] for key in self._value}

    def text_entries(self) -> dict[str, str]:
        """Return the text members of an object by name, {} for null."""
        return {key: each.text() for key, each in self.entries().items()}

    def _odd(self, wanted: str) -> StepFailed:
        """Return the failure for a value of another type."""
        kind = _KINDS.get(type(self._value), "null")
        return StepFailed(
            f"Cannot read the answer of {self._source}: {self._where.lstrip('.') or 'it'} is "
            f"{kind}, not {wanted}."
        )
