"""Shows and checks the settings, and prints their JSON Schema."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ...core.errors import ExitCode
from ...reporting.report import Report
from ...settings.effective import Effective, effective_values
from ...settings.keys import ROWS
from ...settings.model import Settings, load_content, places_to_look
from ...settings.rows import toml_text
from ...settings.schema import schema


def show_config(settings: Settings, report: Report, *, as_json: bool) -> int:
    """Print each setting that counts, and whether the file or the default says so."""
    content = load_content(settings.file)[0] if settings.file else {}
    values = tuple(effective_values(content))
    if as_json:
        rows = [_row(each, settings.file) for each in values]
        report.write_json({"file": settings.file or None, "values": rows})
        return ExitCode.GOOD
    report.write_line(f"# {settings.file or _without_file()}")
    for line in _lines(values):
        report.write_line(line)
    return ExitCode.GOOD


def check_config(settings: Settings, report: Report, *, as_json: bool = False) -> int:
    """Say that the settings file has no mistakes: the program reads it before each task."""
    if as_json:
        report.write_json({"file": settings.file or None, "mistakes": []})
        return ExitCode.GOOD
    counted = f"vaults: {len(settings.vaults)}, hosts: {len(settings.machines)}"
    told = f"{settings.file} has no mistakes ({counted})."
    report.write(told if settings.file else _without_file())
    return ExitCode.GOOD


def _without_file() -> str:
    looked = ", ".join(places_to_look(os.environ))
    return f"No settings file, so each setting has its default. Looked for: {looked}"


def print_schema(report: Report) -> int:
    """Print the JSON Schema of hosts.toml."""
    report.write_line(json.dumps(schema(), indent=2, ensure_ascii=False))
    return ExitCode.GOOD


def _row(value: Effective, file: str) -> Mapping[str, Any]:
    return {
        "table": value.table,
        "row": value.row or None,
        "key": value.key,
        "value": value.value,
        "from": file if value.is_given else "default",
    }


def _lines(values: Iterable[Effective]) -> Iterable[str]:
    """Yield a file that says the same, with a comment on each default."""
    title: tuple[str, ...] = ()
    for each in values:
        if (each.table, each.row) != title:
            title = (each.table, each.row)
            yield ""
            yield f"[[{each.table}]]" if each.table in ROWS else f"[{each.table}]"
            if each.row:
                yield f"name = {toml_text(each.row)}"
        line = f"{each.key} = {toml_text(each.value)}"
        yield line if each.is_given else f"{line}  # default"
