"""Write the picture of the packages into docs/explanation/architecture.md: from their imports.

`python docs/architecture.py` writes it, `--check` compares it. A package points to those that it
uses; what is reached by another way already is not drawn again. What each is for is the first line
of its own docstring.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = "iotstack_invoke"
HOUSE = Path(__file__).parent.parent / PACKAGE
PAGE = Path(__file__).parent / "explanation" / "architecture.md"
BEGIN, END = "<!-- generated: python docs/architecture.py -->", "<!-- end of what is generated -->"


def main(words: list[str]) -> int:
    """Write the page and return 0; with `--check` compare it, and return 1 if it differs."""
    told = PAGE.read_text("utf-8")
    before, _, rest = told.partition(BEGIN)
    made = f"{before}{BEGIN}\n\n{picture()}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"
    if "--check" not in words:
        PAGE.write_text(made, "utf-8")
        return 0
    if made == told:
        return 0
    sys.stderr.write(f"{PAGE} is not what the code says. Write it: python docs/architecture.py\n")
    return 1


def packages() -> list[str]:
    """Return the packages at the top, from the roof down to the ground."""
    return [*TopologicalSorter(uses()).static_order()][::-1]


def uses() -> dict[str, list[str]]:
    """Return which packages each package imports, wherever in its code."""
    found: dict[str, set[str]] = {}
    for path in sorted(HOUSE.glob("*/**/*.py")):
        inside = path.relative_to(HOUSE).parts
        found.setdefault(inside[0], set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(inside) and node.module:
                found[inside[0]].add(node.module.partition(".")[0])
    return {each: sorted(used & set(found) - {each}) for each, used in sorted(found.items())}


def picture() -> str:
    """Return the packages as a graph of Mermaid."""
    direct = uses()
    reached: dict[str, set[str]] = {}
    for each in TopologicalSorter(direct).static_order():
        reached[each] = {*direct[each]}.union(*(reached[used] for used in direct[each]))
    lines = ["```mermaid", "flowchart TD"]
    for each in packages():
        further = set[str]().union(*(reached[used] for used in direct[each]))
        lines += [f"    {each} --> {used}" for used in direct[each] if used not in further]
    return "\n".join([*lines, "```"])


def table() -> str:
    """Return what each package is for."""
    lines = ["| package | what it is for |", "| --- | --- |"]
    for each in packages():
        text = ast.get_docstring(ast.parse((HOUSE / each / "__init__.py").read_text("utf-8")))
        lines.append(f"| `{PACKAGE}/{each}/` | {(text or '').splitlines()[0]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
