"""The value of each key of hosts.toml, as it is used, and whether the file sets it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.dataclass import dataclass
from .keys import ROWS, TABLES, TOP
from .validation import local_policy

HIDDEN = "…"
"""Stands for a secret."""


@dataclass(frozen=True, slots=True)
class Effective:
    """One key of one table with the value that counts."""

    table: str
    row: str
    """The name of the row, '' in a table that is given once."""
    key: str
    value: Any
    is_given: bool
    """Whether the file sets it; otherwise it is the default."""


def effective_values(content: Mapping[str, Any]) -> Iterator[Effective]:
    """Yield the value of each key of a valid file that has one, in the order of the reference.

    Keys without a default that the file does not set are missing.
    """
    for name in TOP:
        if name in ("mqtt", "metrics") and name not in content:
            continue  # the table alone switches it on
        rows = content.get(name, []) if name in ROWS else [content.get(name, {})]
        for row in rows:
            yield from _of_row(name, row)


def _of_row(table: str, row: Mapping[str, Any]) -> Iterator[Effective]:
    name = str(row["name"]) if table in ROWS else ""
    kind = row.get("kind") if table == "vaults" else None
    used = {**local_policy(row), **row} if table in ("stack", "hosts") else row
    for key, each in TABLES[table].items():
        if key == "name" or (kind and each.kinds and kind not in each.kinds):
            continue
        if key in used:
            value = HIDDEN if each.secret else used[key]
            yield Effective(table, name, key, value, key in row)
        elif each.default is not None and not _is_idle(key):
            yield Effective(table, name, key, each.default, False)


def _is_idle(key: str) -> bool:
    """Return whether a default says nothing: the rules of retention, which only add."""
    return key.startswith("keep_") and key not in ("keep_previous", "keep_previous_days")
