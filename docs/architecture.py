"""Draw the packages, and write what each is for: `python docs/architecture.py`, or `--check`.

From the imports comes docs/explanation/architecture.svg: a package stands above those that it
uses. What follows from other lines is not drawn again. What a package is for, in the table of
docs/explanation/architecture.md, is the first line of its docstring.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from generated import written

PACKAGE = "iotstack_invoke"
HOUSE = Path(__file__).parent.parent / PACKAGE
PAGE = Path(__file__).parent / "explanation" / "architecture.md"
PICTURE = PAGE.with_suffix(".svg")
BEGIN, END = "<!-- generated: python docs/architecture.py -->", "<!-- end of what is generated -->"
WIDTH, ROW, BOX_WIDTH, BOX_HEIGHT, BULGE = 640, 64, 170, 34, 60
STYLE = (
    "rect { fill: #e8eaf6; stroke: #3f51b5 } "
    "path { fill: none; stroke: #7986cb; stroke-width: 1.5 } "
    "text { font: 15px sans-serif; text-anchor: middle; fill: #1a1a1a }"
)

Lines = dict[str, list[str]]
"""Which packages each package points to."""


def main(words: list[str]) -> int:
    """Write both files and return 0; with `--check` compare them, and return 1 if one differs."""
    told = PAGE.read_text("utf-8")
    before, _, rest = told.partition(BEGIN)
    page = f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"
    return written({PAGE: page, PICTURE: picture()}, words)


def uses() -> Lines:
    """Return which packages each package imports, wherever in its code."""
    found: dict[str, set[str]] = {}
    for path in sorted(HOUSE.glob("*/**/*.py")):
        inside = path.relative_to(HOUSE).parts
        found.setdefault(inside[0], set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(inside) and node.module:
                found[inside[0]].add(node.module.partition(".")[0])
    return {each: sorted(used & set(found) - {each}) for each, used in sorted(found.items())}


def floors(direct: Lines) -> list[list[str]]:
    """Return the packages by how many stand one above the other below them; the ground first."""
    level: dict[str, int] = {}
    for each in TopologicalSorter(direct).static_order():
        level[each] = max((level[used] + 1 for used in direct[each]), default=0)
    return [sorted(e for e in level if level[e] == n) for n in range(max(level.values()) + 1)]


def drawn(direct: Lines) -> Lines:
    """Return the lines without those that follow from others."""
    reached: dict[str, set[str]] = {}
    for each in TopologicalSorter(direct).static_order():
        reached[each] = {*direct[each]}.union(*(reached[used] for used in direct[each]))
    return {
        each: [e for e in used if not any(e in reached[other] for other in used)]
        for each, used in direct.items()
    }


def picture() -> str:
    """Return the packages as a drawing: the roof at the top, each below what uses it."""
    direct = uses()
    lines = drawn(direct)
    rows = floors(direct)[::-1]
    at: dict[str, tuple[float, float]] = {}
    for number, names in enumerate(rows):
        above = {e: [at[user][0] for user in at if e in lines[user]] or [0] for e in names}
        ordered = sorted(names, key=lambda e: (sum(above[e]) / len(above[e]), e))
        for place, each in enumerate(ordered):
            at[each] = (WIDTH * (2 * place + 1) / (2 * len(names)), ROW * number + ROW / 2)
    shapes = [f'<path d="{line(at[each], at[used])}"/>' for each in at for used in lines[each]] + [
        shape for each, (x, y) in at.items() for shape in box(each, x, y)
    ]
    height = ROW * len(rows)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>'
    return "\n".join((head, *shapes, "</svg>\n"))


def line(upper: tuple[float, float], lower: tuple[float, float]) -> str:
    """Return the way from a box to one below; around those between, if it is not the next."""
    (x, y), (goal_x, goal_y) = upper, lower
    if goal_y - y == ROW:
        return f"M{x:g} {y + BOX_HEIGHT / 2:g} L{goal_x:g} {goal_y - BOX_HEIGHT / 2:g}"
    side = -1 if goal_x < WIDTH / 2 else 1
    edge, goal_edge = x + side * BOX_WIDTH / 2, goal_x + side * BOX_WIDTH / 2
    out = (max if side > 0 else min)(edge, goal_edge) + side * BULGE
    return f"M{edge:g} {y:g} C{out:g} {y:g} {out:g} {goal_y:g} {goal_edge:g} {goal_y:g}"


def box(name: str, x: float, y: float) -> tuple[str, str]:
    """Return the shapes of a package whose middle is at a point."""
    corner = f'x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}"'
    size = f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"'
    return f"<rect {corner} {size}/>", f'<text x="{x:g}" y="{y + 5:g}">{name}</text>'


def table() -> str:
    """Return what each package is for, from the roof down to the ground."""
    lines = ["| package | what it is for |", "| --- | --- |"]
    for each in (name for row in floors(uses())[::-1] for name in row):
        text = ast.get_docstring(ast.parse((HOUSE / each / "__init__.py").read_text("utf-8")))
        lines.append(f"| `{PACKAGE}/{each}/` | {(text or '').splitlines()[0]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
