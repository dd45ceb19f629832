"""The text of compose files: YAML read as nodes, variables, files of variables. Runs nothing.

YAML is composed, never constructed: a node is read only when needed, so nested aliases cost
nothing, and an unknown tag is no error. No message holds a value: these files contain passwords.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.dataclass import dataclass

Node = Any
"""A node of YAML: id, tag, value, style. PyYAML is imported only if there is a file to read."""
NODE_LIMIT = 200_000
"""The maximum number of list and mapping entries that are read in one stack."""
DEPTH_LIMIT = 200
NESTED_LIMIT = 20


class NotRead(Exception):
    """Why a file cannot be parsed, in words without any of its values."""


@dataclass(slots=True)
class Budget:
    """The remaining number of entries to read: aliases can make a few letters a large list."""

    left: int = NODE_LIMIT

    def spend(self, entries: int) -> None:
        """Count so many entries; raises NotRead if they are too many."""
        self.left -= entries
        if self.left < 0:
            raise NotRead(f"it has more than {NODE_LIMIT} entries, aliases included")


def documents(text: str) -> tuple[Node, ...]:
    """Return the documents of a YAML text; raises NotRead if it is not YAML."""
    try:
        import yaml
    except ModuleNotFoundError as error:  # the checkout is newer than its installed dependencies
        raise NotRead("PyYAML is not installed. `sh setup` installs what is missing") from error
    try:
        in_c = getattr(yaml, "CBaseLoader", None)
        if in_c:  # its recursion has no limit, and would crash the program
            _refuse_depth(yaml.parse(text, Loader=in_c))
        loader = in_c or yaml.BaseLoader
        return tuple(node for node in yaml.compose_all(text, Loader=loader) if node is not None)
    except RecursionError as error:
        raise NotRead(f"it is nested more than {DEPTH_LIMIT} levels deep") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise NotRead(f"{line}not valid YAML{_said(error.problem)}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # without its C part: of chr()
        raise NotRead("not valid YAML: it has a character that YAML does not allow") from error


def _refuse_depth(events: Iterable[object]) -> None:
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT:
            raise NotRead(f"it is nested more than {DEPTH_LIMIT} levels deep")


def _said(problem: str | None) -> str:
    """Return the parser's message up to its first quotation, which could be a password."""
    said = re.split(r"['\"]", problem or "")[0].strip()
    return f": {said}" if said else ""


def entries(node: Node | None, budget: Budget) -> dict[str, Node]:
    """Return a mapping's values by name, merge keys (`<<`) followed; {} of anything else."""
    found: dict[str, Node] = {}
    _gather(node, found, budget, ())
    return found


def _gather(
    node: Node | None, found: dict[str, Node], budget: Budget, within: tuple[int, ...]
) -> None:
    """Add a mapping's own values, its last one first, then the merged ones."""
    if node is None or node.id != "mapping" or id(node) in within:
        return
    budget.spend(len(node.value) + 1)
    mine: dict[str, Node] = {}
    merged: list[Node] = []
    for key, value in node.value:
        if key.id != "scalar":
            continue
        if key.value == "<<" and not key.style:
            merged += value.value if value.id == "sequence" else [value]
        else:
            mine[key.value] = value
    for name, value in mine.items():
        found.setdefault(name, value)
    for each in merged:
        _gather(each, found, budget, (*within, id(node)))


def items(node: Node | None, budget: Budget) -> tuple[Node, ...]:
    """Return the items of a list; a single text is a list of one."""
    if node is None or node.id == "mapping":
        return ()
    if node.id == "scalar":
        return (node,) if scalar(node) else ()
    budget.spend(len(node.value) + 1)
    return tuple(node.value)


def scalar(node: Node | None) -> str:
    """Return a text, '' if the node has none."""
    if node is None or node.id != "scalar":
        return ""
    value: str = node.value
    return "" if not node.style and value in ("~", "null", "Null", "NULL") else value


def is_on(node: Node | None) -> bool:
    """Return whether a switch is on, as YAML spells it."""
    return scalar(node).lower() in ("true", "yes", "on", "y")


def is_off(node: Node | None) -> bool:
    """Return whether a switch is off."""
    return scalar(node).lower() in ("false", "no", "off", "n")


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOW = re.compile(r":?[-?+]")


def filled(
    text: str, values: Mapping[str, str], unset: set[str] | None = None, depth: int = 0
) -> str:
    """Return a text with its variables replaced as compose does it.

    Names that have no value, and no default either, are added to `unset`; they become ''.
    """
    return "".join(_pieces(text, values, set() if unset is None else unset, depth))


def _pieces(text: str, values: Mapping[str, str], unset: set[str], depth: int) -> Iterator[str]:
    position = 0
    while (start := text.find("$", position)) >= 0:
        yield text[position:start]
        after = text[start + 1 : start + 2]
        if after == "$":
            yield "$"
            position = start + 2
        elif after == "{" and (end := _closing(text, start + 2)) >= 0:
            yield _braced(text[start + 2 : end], values, unset, depth)
            position = end + 1
        elif name := _NAME.match(text, start + 1):
            if name[0] not in values:
                unset.add(name[0])
            yield values.get(name[0], "")
            position = name.end()
        else:
            yield "$"
            position = start + 1
    yield text[position:]


def _closing(text: str, start: int) -> int:
    """Return where the brace before `start` is closed, -1 if it is not."""
    open_braces = 1
    for position in range(start, len(text)):
        if text[position] == "{" and text[position - 1] == "$":
            open_braces += 1
        elif text[position] == "}":
            open_braces -= 1
            if not open_braces:
                return position
    return -1


def _braced(inside: str, values: Mapping[str, str], unset: set[str], depth: int) -> str:
    name = _NAME.match(inside)
    how = _HOW.match(inside, name.end()) if name else None
    if name is None or depth > NESTED_LIMIT or (how is None and name.end() != len(inside)):
        return ""
    value = values.get(name[0])
    if how is None:
        if value is None:
            unset.add(name[0])
        return value or ""
    given = bool(value) if how[0].startswith(":") else value is not None
    if how[0].endswith("+"):
        return filled(inside[how.end() :], values, unset, depth + 1) if given else ""
    if given:
        return value or ""
    if how[0].endswith("?"):
        unset.add(name[0])
        return ""
    return filled(inside[how.end() :], values, unset, depth + 1)


_VARIABLE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*[=:][ \t]*
    (?: '((?:[^'\\]|\\.)*)' | "((?:[^"\\]|\\.)*)" | ([^\n]*) )""",
    re.MULTILINE | re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def variables(text: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in a file (`.env`); `known` values replace its own `$X`."""
    found: dict[str, str] = {}
    for match in _VARIABLE.finditer(text.removeprefix("\ufeff").replace("\r\n", "\n")):
        name, literal, quoted, plain = match.groups()
        if literal is not None:
            found[name] = literal
        elif quoted is not None:
            value = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), quoted)
            found[name] = filled(value, {**found, **known})
        else:
            value = re.split(r"(?:^|[ \t])#", plain, maxsplit=1)[0].strip()
            found[name] = filled(value, {**found, **known})
    return found
