"""The rows of hosts.toml that define what a backup holds, as text for a new file. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..services.known import ROW_KEYS, LeaveOut, Service, packaged_service, read_row
from .model import Settings


def rows_of(settings: Settings) -> tuple[str, ...]:
    """Return the lines of `[[stack.include]]`, `[[stack.exclude]]` and `[[services]]`.

    Nothing else of hosts.toml: hooks and vaults may contain secrets.
    """
    return tuple(_lines(settings))


def missing_rows(told: Iterable[str], settings: Settings) -> int:
    """Return how many rows these settings lack; `told` is the result of rows_of elsewhere."""
    return len(_rows(told) - _rows(rows_of(settings)))


def _rows(lines: Iterable[str]) -> set[str]:
    """Return each row as one text; no line within one begins with a bracket."""
    return {*"\n".join(("", *lines)).split("\n[[")[1:]}


def _lines(settings: Settings) -> Iterator[str]:
    for each in settings.stack.inclusions:
        goal = {"restore_to": each.restore_to} if each.restore_to else {}
        yield from _row("stack.include", {"path": each.path, **goal})
    for row in settings.stack.exclusions:
        yield from _row("stack.exclude", {"path": row.path, "reason": row.reason})
    for service in settings.services:
        yield from _row("services", _given(service))


def _given(service: Service) -> dict[str, Any]:
    """Return the fields of a service that hosts.toml sets: those that differ from the default."""
    packaged = packaged_service(service.name)
    base = packaged or read_row({"name": service.name})
    given: dict[str, Any] = {"name": service.name}
    if packaged is None:
        given["kind"] = service.kind.value
    for key in ROW_KEYS:
        value: Any = getattr(service, key)
        if value != getattr(base, key) and (value or isinstance(value, tuple)):
            given[key] = service.kind.value if key == "kind" else value
    return given


def _row(title: str, row: Mapping[str, Any]) -> Iterator[str]:
    yield f"[[{title}]]"
    yield from (f"{key} = {toml_text(value)}" for key, value in row.items())


def toml_text(value: Any) -> str:
    """Return a value as TOML, on one line; a LeaveOut as the table that it was read from."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, LeaveOut):
        return toml_text({"inside": value.inside, "reason": value.reason})
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml_text(each)}' for key, each in value.items())} }}"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
