"""Changes the text of a hosts.toml, and of it only what is asked: comments and order stay.

Pure. Each result is read again: if it does not say exactly what it should, the change is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Item, Null, Table

from ..core.errors import Refused
from ..core.toml_text import NotToml, read_toml
from .rows import toml_text

SCHEMA_FILE = "hosts.schema.json"
"""The file beside a new hosts.toml with which editors check it (`config.schema`)."""
SCHEMA_LINE = f"#:schema ./{SCHEMA_FILE}"
"""How taplo finds it: https://taplo.tamasfe.dev/configuration/directives.html."""
NEW_FILE = f"""\
{SCHEMA_LINE}
# The settings of iotstack-invoke. Change them here, or run `inv init` again: it changes only what
# you answer differently. `inv config.show` prints every setting with its default, and `inv
# config.check` finds mistakes.

# The stack on this machine, and which of its backups stay in its folder backups/.
[stack]
"""
COMMENT_COLUMN = 34


def with_values(text: str, table: str, values: Mapping[str, Any]) -> str:
    """Return the text with these values in a table; None removes a key.

    A new key is put after the last one of the table. Raises Refused if this text cannot be
    changed without changing more.
    """
    before = read_toml(text)
    old = before.get(table, {})
    changed = {key: value for key, value in values.items() if value != old.get(key)}
    if not changed:
        return text
    text = _whole(text)
    kept = {key: value for key, value in {**old, **changed}.items() if value is not None}
    try:
        found = _with_values(text, table, changed)
    except TOMLKitError:
        found = ""
    lines = ", ".join(
        f"remove {key}" if value is None else f"{key} = {toml_text(value)}"
        for key, value in changed.items()
    )
    return _checked(found, {**before, table: kept}, f"in [{table}] {lines}")


def with_row(text: str, table: str, row: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Return the text with one more row of a table, at its end.

    `comments`: what is written behind a key, and with the key '' before the row. Raises Refused
    as with_values does.
    """
    before = read_toml(text)
    rows = before.get(table, [])
    lines = [
        f"{line:<{COMMENT_COLUMN}}# {comments[key]}" if key in comments else line
        for key, line in ((key, f"{key} = {toml_text(value)}") for key, value in row.items())
    ]
    first = (f"# {comments['']}",) if "" in comments else ()
    block = "\n".join((*first, f"[[{table}]]", *lines, ""))
    if rows and not _is_in_brackets(text, table):
        document = tomlkit.parse(text)
        document[table].append(dict(row))
        found = tomlkit.dumps(document)
    else:
        found = f"{_whole(text)}\n{block}" if text.strip() else block
    told = f"add [[{table}]] with {', '.join(row)}"
    return _checked(found, {**before, table: [*rows, dict(row)]}, told)


def with_table(text: str, table: str, comment: str) -> str:
    """Return the text with a table without keys at its end, unless it has one.

    Raises Refused as with_values does.
    """
    before = read_toml(text)
    if table in before:
        return text
    found = f"{_whole(text)}\n# {comment}\n[{table}]\n"
    return _checked(found, {**before, table: {}}, f"add [{table}]")


def _with_values(text: str, table: str, changed: Mapping[str, Any]) -> str:
    """Return the changed text, not yet checked; '' if its parts would get another order."""
    document = tomlkit.parse(text)
    added = {key: value for key, value in changed.items() if value is not None}
    if table not in document:
        return f"{text}\n[{table}]\n{_lines(added)}".lstrip()
    if tomlkit.dumps(document) != text:
        return ""
    entry: Any = document[table]
    for key, value in changed.items():
        if key in entry and value is None:
            entry.pop(key)
        elif key in entry:
            entry[key] = added.pop(key)
    last = _last_value(entry)
    if isinstance(last, Item) and re.search(rf"^\s*\[\s*{table}\s*\]", text, re.MULTILINE):
        last.trivia.trail += _lines(added)  # tomlkit itself would put them below later comments
    else:
        entry.update(added)
    return tomlkit.dumps(document)


def _last_value(entry: Any) -> Any:
    """Return the last value of a table, or the table; of a bool, tomlkit's item."""
    body = entry.value.body if isinstance(entry, Table) else ()
    keyed = (item for key, item in body if key and not isinstance(item, (Table, AoT, Null)))
    return [entry, *keyed][-1]


def _whole(text: str) -> str:
    """Return a text whose last line is ended."""
    return text if text.endswith("\n") or not text else f"{text}\n"


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {toml_text(value)}\n" for key, value in values.items())


def _is_in_brackets(text: str, table: str) -> bool:
    """Return whether the rows of a table each have a header, and are no list of tables."""
    return isinstance(tomlkit.parse(text).get(table), (AoT, Table))


def _checked(text: str, meant: Mapping[str, Any], told: str) -> str:
    """Return a text that says what is meant; raises Refused."""
    try:
        if read_toml(text) == meant:
            return text
    except NotToml:
        pass
    raise Refused(
        "This hosts.toml is written in a way that this program cannot change. Nothing was "
        "written.",
        f"Change it yourself: {told}.",
    )
