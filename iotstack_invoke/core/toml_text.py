"""Read TOML that users wrote; every mistake in it becomes one kind of error. Pure."""

from __future__ import annotations

import tomllib
from typing import Any

_BITS = 63


class NotToml(ValueError):
    """A text is not valid TOML, or holds a value that no program can use; the message says why."""


def read_toml(text: str) -> dict[str, Any]:
    """Return the table that a text holds; raises NotToml."""
    try:
        content = tomllib.loads(text)
        is_large = _has_large(content)
    except tomllib.TOMLDecodeError as error:
        raise NotToml(str(error)) from error
    except RecursionError as error:
        raise NotToml("its lists or tables are nested too deep") from error
    except ValueError as error:  # int() refuses more than 4,300 digits
        raise NotToml("a number in it has too many digits") from error
    if is_large:
        raise NotToml("a whole number in it has more than 64 bits")
    return content


def _has_large(value: object) -> bool:
    """Return whether a value contains an integer too large for TOML (v1.0.0, "Integer")."""
    if isinstance(value, dict):
        return any(map(_has_large, value.values()))
    if isinstance(value, list):
        return any(map(_has_large, value))
    return isinstance(value, int) and not -(1 << _BITS) <= value < 1 << _BITS
