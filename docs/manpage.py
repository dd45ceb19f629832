"""Write docs/iotstack.1, the manual page: `python docs/manpage.py`, or `--check` it.

It is made from the tasks, each with its options and the values that they take. The exit codes
are those of docs/reference/exit-codes.md. To read it: man docs/iotstack.1
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from commands import OF_EVERY_TASK, arguments, default
from generated import written
from invoke.parser.argument import Argument
from invoke.tasks import Task

from iotstack_invoke import __version__
from iotstack_invoke.cli.shared_task import plain_name
from iotstack_invoke.cli.tasks_and_flags import namespace
from iotstack_invoke.core.stack_folders import BACKUPS
from iotstack_invoke.settings.keys import TABLES
from iotstack_invoke.settings.model import places_to_look

PAGE = Path(__file__).parent / "iotstack.1"
CODES = PAGE.parent / "reference" / "exit-codes.md"
STACK = TABLES["stack"]["folder"].default
OF_USER, OF_SYSTEM = places_to_look({"HOME": "~"})
KINDS = {
    "<runtags>": "RUNTAG",
    "<vaults>": "VAULT",
    "<hosts>": "HOST",
    "<services>": "SERVICE",
    "<parts>": "PART",
    "<files>": "FILE",
    "<backup-files>": "FILE",
    "<text>": "VALUE",
}
"""How a kind of values is written in an option; a text of one's own is VALUE."""
DESCRIPTION = """\
`iotstack` backs up and restores an IOTstack: services such as Node-RED, InfluxDB, Grafana and
Home Assistant, in Docker on a Raspberry Pi. The stack keeps running. Databases are dumped, and a
backup counts only after verification.

A backup is a set of files in one folder: its parts and a manifest. A vault is a place for copies:
another machine over SSH, a drive, or a cloud by rclone. A restore is checked before it changes
anything, verified after, and rolled back on failure.

Without any settings, `iotstack backup` backs up the stack in ~/IOTstack. `iotstack init` asks a
few questions, and writes the settings."""
COMMANDS = """\
`iotstack` alone lists the commands. In a clone of the repository, `inv` COMMAND is the same.

An option that takes a value is written `--name value` or `--name=value`. RUNTAG is the name of a
backup, such as 2026-11-23_1100; `latest` is the newest one. VAULT and HOST are names in
hosts.toml; `here` is the machine itself."""
FILES = {
    OF_USER: "The settings of this user. The first file that exists is used.",
    OF_SYSTEM: "The settings of this machine.",
    f"{STACK}/{BACKUPS}": "The backups: parts, manifests, logs, and RESTORE.txt, which tells "
    "how to restore each without this program.",
    f"{STACK}/restore": "What restores replaced, for `iotstack undo`.",
    "~/.local/state/iotstack": "Records of runs and verifications, and logs of other hosts.",
}
ENVIRONMENT = {
    "IOTSTACK_SETTINGS": "The settings file, unless `--settings` names one.",
    "XDG_CONFIG_HOME": "The folder to use instead of ~/.config.",
    "XDG_STATE_HOME": "The folder to use instead of ~/.local/state.",
    "CREDENTIALS_DIRECTORY": "The folder in which systemd puts credentials: see `schedule.install "
    "--credential`.",
    "DOCKER_HOST, SSH_AUTH_SOCK, RCLONE_CONFIG": "As docker, ssh and rclone read them.",
}
EXAMPLES = {
    "iotstack init": "Set this machine up: a stack, a place for copies, a time of day.",
    "iotstack backup --dry-run": "Show what a backup would do. Without --dry-run, do it.",
    "iotstack list": "List the backups here and in the vaults.",
    "iotstack rehearse": "Test a restore of the newest backup; nothing that runs is touched.",
    "iotstack restore --runtag 2026-11-23_1100 --from nas": "Restore a copy in the vault nas.",
    "iotstack restore --only nodered": "Restore one service from the newest backup.",
    "iotstack undo": "Go back to before the last restore.",
    "iotstack backup --hosts live": "From a laptop, back up every live host.",
    "iotstack schedule.install --at 03:00": "Back up each day by a timer.",
}
SEE_ALSO = "docker(1), ssh(1), rclone(1), age(1), systemd.timer(5), crontab(5)"


def main(words: list[str]) -> int:
    """Write the page and return 0; with `--check` compare it, and return 1 if it differs."""
    return written({PAGE: page()}, words)


def page() -> str:
    """Return the text of the page, in the man macros of roff."""
    tasks: dict[str, Task] = {name: namespace[name] for name in namespace.task_names}
    asked = {name: arguments(each) for name, each in tasks.items()}
    every = [each for each in next(iter(asked.values())) if each.name in OF_EVERY_TASK]
    lines = [
        '.\\" This page is generated: python docs/manpage.py',
        f'.TH IOTSTACK 1 "" "iotstack\\-invoke {__version__}" "User Commands"',
        ".nh",  # neither words nor names are broken, and spaces are not stretched
        ".ad l",
        ".SH NAME",
        r"iotstack \- back up and restore an IOTstack",
        ".SH SYNOPSIS",
        *(".B iotstack", r"\fICOMMAND\fR [\fIOPTION\fR]\|.\|.\|."),
        *(".br", ".B iotstack", r"\fICOMMAND\fR \fB\-\-help\fR"),
        *section("DESCRIPTION", paragraphs(DESCRIPTION)),
        *section("OPTIONS OF EVERY COMMAND", options(every)),
        *section("COMMANDS", paragraphs(COMMANDS)),
    ]
    for name, task in tasks.items():
        first = (task.__doc__ or "").strip().splitlines()[0]
        own = [each for each in asked[name] if each.name not in OF_EVERY_TASK]
        arguments_told = "".join(
            f" {argument_text(each, task)}" for each in own if each.positional
        )
        lines += [f".SS {roff(name)}{arguments_told}", roff(first), *options(own)]
    lines += section("EXIT STATUS", exit_codes())
    lines += section("FILES", tagged(FILES.items()))
    lines += section("ENVIRONMENT", tagged(ENVIRONMENT.items()))
    lines += section("EXAMPLES", tagged(EXAMPLES.items()))
    lines += [".SH SEE ALSO", re.sub(r"([\w.]+)\(", r"\\fB\1\\fR(", SEE_ALSO)]
    return "\n".join(lines) + "\n"


def section(title: str, lines: Iterable[str]) -> list[str]:
    """Return a section with its title."""
    return [f".SH {title}", *lines]


def paragraphs(text: str) -> Iterator[str]:
    """Yield the lines of paragraphs, which an empty line parts."""
    for each in text.split("\n\n"):
        yield from (".PP", *map(roff, each.splitlines()))


def tagged(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of a list: what is meant in bold, and below it what it means."""
    for tag, text in rows:
        yield from (".TP", f"\\fB{roff(tag)}\\fR", roff(text))


def options(own: Iterable[Argument]) -> Iterator[str]:
    """Yield the lines of a list of options and arguments."""
    for each in own:
        told = default(each)
        has_told = not told or "default" in (each.help or "").lower()
        more = "" if has_told else f" Default: {told.strip('`')}."
        yield from (".TP", option_text(each), roff(f"{each.help or ''}{more}"))


def option_text(argument: Argument) -> str:
    """Return an option as it is typed, the one that changes something."""
    name = plain_name(argument)
    if argument.positional:
        return f"\\fI{name.upper()}\\fR"
    if argument.kind is bool:
        return f"\\fB{roff(f'--no-{name}' if argument.default else f'--{name}')}\\fR"
    given = f"={values_text(argument)}" if argument.takes_value else ""
    return f"\\fB{roff(f'--{name}')}\\fR{given}"


def values_text(argument: Argument) -> str:
    """Return what an option takes: words of the program in bold, others to be filled in."""
    words = getattr(argument, "values", "").split() or ["<text>"]
    told = (KINDS.get(each, each) for each in words)
    return "|".join(
        f"\\fI{each}\\fR" if each.isupper() else f"\\fB{roff(each)}\\fR" for each in told
    )


def argument_text(argument: Argument, task: Task) -> str:
    """Return an argument that needs no flag, in brackets if it may be left out."""
    name = plain_name(argument).upper()
    return f"[{name}]" if getattr(task, "latest", False) else name


def exit_codes() -> Iterator[str]:
    """Yield the lines of the page of exit codes: its table, its lists and its paragraphs."""
    for line in CODES.read_text("utf-8").splitlines()[1:]:
        if line.startswith(("| code", "| ---")):
            continue
        if line.startswith("| "):
            code, meaning, remedy = (cell.strip() for cell in line.strip("|").split("|"))
            yield from tagged([(code, f"{meaning} {remedy}".strip())])
        elif line.startswith("## "):
            yield f".SS {roff(line[3:])}"
        elif line.startswith("- "):
            yield from (r".IP \(bu 2", roff(line[2:]))
        elif line:
            yield from (".PP", roff(line))


def roff(text: str) -> str:
    """Return a text of one line as roff has it; in Markdown's backticks, it is bold."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link
    plain = re.sub(r"\binv(?= [a-z-])", "iotstack", plain).replace("\\", r"\e").replace("-", r"\-")
    bold = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", plain)
    escaped = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in bold)
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
