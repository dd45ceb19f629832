"""Write the tables of docs/reference/hosts-toml.md: `python docs/settings.py`, or `--check` them.

Each table follows a line `<!-- keys: NAME -->`, and is made from the keys that check the file.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from generated import written

from iotstack_invoke.backups.retention import MOST_SETS
from iotstack_invoke.settings.keys import POLICY, SSH, TABLES, Key

PAGE = Path(__file__).parent / "reference" / "hosts-toml.md"
TABLE = re.compile(r"(<!-- keys: (\w+)[^>]*-->\n\n)(?:\|.*\n)*")
RULES = "`keep` … `keep_at_least`"
SEE = "see [retention](#retention)."
TOGETHER = {
    "stack": (RULES, "—", "`keep = 5`", f"Which backups stay here: {SEE}"),
    "vaults": (RULES, "all", "—", "none", f"Without them nothing is ever removed there: {SEE}"),
    "hosts": (
        f"`sudo`, `exclude`, `exclude_defaults`, `include`, `adopt`, {RULES}",
        "—",
        "as in `[stack]`",
        "The same as in [`[stack]`](#stack), for that machine. Paths must not begin with `~`.",
    ),
}
"""One row for the keys that have a section of their own."""
OF_STACK = ("sudo", "exclude", "exclude_defaults", "include", "adopt")


def main(words: list[str]) -> int:
    """Write the page and return 0; with `--check` compare it, and return 1 if it differs."""
    text = PAGE.read_text("utf-8")
    return written({PAGE: TABLE.sub(lambda found: found[1] + table(found[2]), text)}, words)


def table(name: str) -> str:
    """Return the table of one table of the file."""
    keys: Mapping[str, Key] = {"policy": POLICY, "ssh": SSH}.get(name) or TABLES[name]
    apart = {*POLICY, *SSH} if name in TOGETHER else set()
    apart |= {*OF_STACK} if name == "hosts" else set()
    kinds = name == "vaults"
    columns = ["key", *(["for"] if kinds else []), "type", "default", "meaning"]
    rows = [columns, ["---"] * len(columns)]
    for key, each in keys.items():
        if key == "keep" and name == "stack":
            rows.append(list(TOGETHER[name]))
        if key not in apart:
            of = [", ".join(each.kinds) or "all"] if kinds else []
            rows.append([f"`{key}`", *of, kind(each), default(each), each.meaning])
    if name in ("vaults", "hosts"):
        rows.append(list(TOGETHER[name]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def kind(key: Key) -> str:
    """Return the type of a value in words."""
    if key.shown:
        return key.shown
    if key.choices:
        return one_of(f'`"{each}"`' for each in key.choices)
    if key.type is int:
        return (
            "number"
            if key.most is None or key.most == MOST_SETS
            else f"number, {key.least:,} to {key.most:,}"
        )
    if key.type is list:
        return {"": "list of texts", "hook": "list of hooks", "leave_out": "list of tables"}.get(
            key.items, "rows"
        )
    return {str: "text", bool: "true or false", dict: "table"}[key.type]


def one_of(values: Iterable[str]) -> str:
    """Return values as a sentence has them."""
    *first, last = values
    return f"{', '.join(first)} or {last}"


def default(key: Key) -> str:
    """Return what a missing key means."""
    if key.needed:
        return "required"
    return key.without if key.default is None else f"`{json.dumps(key.default)}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
