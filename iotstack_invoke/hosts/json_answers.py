"""What a program answers as JSON, read strictly: of the type that is asked for, or StepFailed.

Another version, or another program of that name, may answer anything. Not for: files of ours, in
which what cannot be read is passed over, or is damage.
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
    """Return an answer; raises StepFailed if it is no JSON. `source` says whose answer it is."""
    try:
        return JsonAnswer(json.loads(content), source)
    except RecursionError as error:
        raise StepFailed(f"Cannot read the answer of {source}: it is nested too deep.") from error
    except ValueError as error:
        raise StepFailed(f"Cannot read the answer of {source}: {error}.") from error


class JsonAnswer:
    """A value in an answer, read by what it is to be.

    Each read raises StepFailed for a value of another type, which may be a secret and is not told.
    What is null, or not there at all, is the default where one is given.
    """

    def __init__(self, value: object, source: str, where: str = "") -> None:
        self._value = value
        self._source = source
        self._where = where

    def __getitem__(self, key: str) -> JsonAnswer:
        """Return what an object has by a name; of null it is null."""
        where = f"{self._where}.{ascii(key)[1:-1]:.{MOST_NAME_LETTERS}}"
        if self._value is None:
            return JsonAnswer(None, self._source, where)
        if not isinstance(self._value, dict):
            raise self._odd("an object")
        return JsonAnswer(self._value.get(key), self._source, where)

    def text(self, default: str | None = None) -> str:
        """Return a text that a path, or the word of a command, may be."""
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
        """Return a whole number."""
        if self._value is None and default is not None:
            return default
        if type(self._value) is not int:
            raise self._odd("a whole number")
        return self._value

    def digits(self, default: int | None = None) -> int:
        """Return the whole number that a text is; of none it is the default."""
        text = self.text(None if default is None else "")
        if not text and default is not None:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
            raise self._odd("a whole number")
        return int(text)

    def flag(self, *, default: bool | None = None) -> bool:
        """Return a truth value."""
        if self._value is None and default is not None:
            return default
        if not isinstance(self._value, bool):
            raise self._odd("a truth value")
        return self._value

    def items(self, count: int | None = None, *, or_none: bool = False) -> tuple[JsonAnswer, ...]:
        """Return the values of a list, of so many; of null () if there may be none."""
        if self._value is None and or_none:
            return ()
        if not isinstance(self._value, list):
            raise self._odd("a list")
        if count not in (None, len(self._value)):
            raise self._odd(f"one of {count}")
        named = ((each, f"{self._where}[{number}]") for number, each in enumerate(self._value))
        return tuple(JsonAnswer(each, self._source, where) for each, where in named)

    def texts(self) -> tuple[str, ...]:
        """Return the texts of a list, () of null."""
        return tuple(each.text() for each in self.items(or_none=True))

    def entries(self) -> dict[str, JsonAnswer]:
        """Return the values of an object by their names, {} of null."""
        if self._value is None:
            return {}
        if not isinstance(self._value, dict):
            raise self._odd("an object")
        return {JsonAnswer(key, self._source).text(): self[key] for key in self._value}

    def text_entries(self) -> dict[str, str]:
        """Return the texts of an object by their names, {} of null."""
        return {key: each.text() for key, each in self.entries().items()}

    def _odd(self, wanted: str) -> StepFailed:
        """Return the failure of an answer that has something else here."""
        kind = _KINDS.get(type(self._value), "null")
        return StepFailed(
            f"Cannot read the answer of {self._source}: {self._where.lstrip('.') or 'it'} is "
            f"{kind}, not {wanted}."
        )
