"""Write docs/reference/commands.md from the tasks: `python docs/commands.py`, or `--check` it.

Each task with its first line of help, and each of its options with its default and its help.
"""

import sys
from pathlib import Path

from generated import written
from invoke.parser.argument import Argument
from invoke.parser.context import to_flag
from invoke.tasks import Task

from iotstack_invoke.cli.tasks_and_flags import namespace

PAGE = Path(__file__).parent / "reference" / "commands.md"
OF_EVERY_TASK = ("settings", "quiet", "verbose", "debug")
HEAD = """\
# Commands

<!-- This page is generated: python docs/commands.py -->

`iotstack TASK` in any folder, and `inv TASK` in the clone, are the same. `iotstack` alone lists
the tasks, and `iotstack TASK --help` shows the options of one. The [exit codes](exit-codes.md)
are the same for all tasks but `status`.

An option that takes a value is written `--name value` or `--name=value`. These two are options of
every task:
"""


def main(words: list[str]) -> int:
    """Write the page and return 0; with `--check` compare it, and return 1 if it differs."""
    return written({PAGE: page()}, words)


def page() -> str:
    """Return the text of the page."""
    tasks: dict[str, Task] = {name: namespace[name] for name in sorted(namespace.task_names)}
    asked = {name: arguments(each) for name, each in tasks.items()}
    shared = [each for each in next(iter(asked.values())) if each.name in OF_EVERY_TASK]
    sections = ["\n".join((HEAD, *table(shared)))]
    for name, task in tasks.items():
        own = [each for each in asked[name] if each.name not in OF_EVERY_TASK]
        first = (task.__doc__ or "").strip().splitlines()[0]
        usage = " ".join(("iotstack", name, *map(positional, own))).strip()
        lines = [f"## {name}", "", first, "", "```sh", usage, "```"]
        sections.append("\n".join([*lines, *([""] if own else []), *table(own)]))
    return "\n\n".join(sections) + "\n"


def arguments(task: Task) -> list[Argument]:
    """Return the arguments of a task: what needs no flag first, then by name.

    To be called once for each task: Invoke forgets the help of an option that it was asked for.
    """
    found = task.get_arguments()
    flags = sorted((each for each in found if not each.positional), key=lambda e: str(e.name))
    return [*(each for each in found if each.positional), *flags]


def positional(argument: Argument) -> str:
    """Return how an argument stands in the usage; '' for one that needs its flag."""
    return str(argument.name).upper() if argument.positional else ""


def table(options: list[Argument]) -> list[str]:
    """Return the lines of a table of options; none if there are none."""
    rows = [f"| `{typed(each)}` | {default(each)} | {each.help or ''} |" for each in options]
    return ["| option | default | meaning |", "| --- | --- | --- |", *rows] if rows else []


def typed(argument: Argument) -> str:
    """Return an option as it is typed, the one that changes something."""
    name = str(argument.names[0]).replace("_", "-").strip("-")
    if argument.positional:
        return name.upper()
    if argument.kind is bool:
        return f"--no-{name}" if argument.default else to_flag(name)
    return f"{to_flag(name)} VALUE" if argument.takes_value else to_flag(name)


def default(argument: Argument) -> str:
    """Return the default of an option for people; '' for a flag, and where nothing is given."""
    plain = not argument.takes_value or argument.default in (None, "", [])
    return "" if plain else f"`{argument.default}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
