"""What may come next in a command line: tasks, flags and their values, for Tab in a shell.

Reads only names on this disk: no connection, no Docker, no archive. What a flag takes is declared
beside its help, in tasks_and_flags.py. completion.bash, .zsh and .fish are what the shells run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext, to_flag

from ..core.errors import ExitCode, IotstackError, SettingsError
from .bash_line import bash_replies, split_line
from .shared_task import plain_name

if TYPE_CHECKING:
    from ..backups.sets import BackupSet

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("iotstack", "inv", "invoke")
SHELL_VARIABLE = "IOTSTACK_COMPLETE"
"""Our scripts name their shell in it. Those of Invoke do not."""
TEXT_VARIABLE = "IOTSTACK_COMPLETE_TEXT"
"""What bash would replace: the end of the last word."""
FILES, NO_FILES = 0, int(ExitCode.NOT_FOUND)
"""The exit codes of `--complete`: whether the shell offers names of files if nothing else fits."""
FILES_KIND = "<files>"
TASKS_KIND = "<tasks>"


class Offer(NamedTuple):
    """A word that may come next, and what it means."""

    word: str
    meaning: str = ""


class Tasks(NamedTuple):
    """What can be typed: the flags before a task, and the tasks."""

    core: ParserContext
    contexts: Mapping[str, ParserContext]
    """By each name of a task."""
    meanings: Mapping[str, str]
    """The first line of help, by the names to offer, in their order."""


class Position(NamedTuple):
    """Where the word stands that is completed."""

    context: ParserContext
    argument: Argument | None
    """The one whose value it is; None: a flag, or a task."""
    given: Mapping[str, str]
    """The values of this task's earlier arguments, by their names as typed."""


def script(shell: str) -> str:
    """Return the text that a shell reads to complete our programs; ValueError for another."""
    if shell not in SHELLS:
        raise ValueError(shell)
    path = f"{os.path.dirname(os.path.abspath(__file__))}/completion.{shell}"
    with open(path, encoding="utf-8") as stream:
        return stream.read().replace("{names}", " ".join(PROGRAMS))


def answer(
    tasks: Tasks, words: Sequence[str], environment: Mapping[str, str], checkout: str
) -> tuple[list[str], int]:
    """Return the lines to print for a shell, and the exit code: FILES or NO_FILES.

    `words` begin with the program. bash's are one text, the command line as typed up to the
    cursor. A line is a word, for zsh and fish with its meaning after a tab. Never raises.
    """
    try:
        return _answer(tasks, words, environment, checkout)
    except Exception:  # noqa: BLE001 - an error would be printed into what is being typed
        return [], NO_FILES


def _answer(
    tasks: Tasks, words: Sequence[str], environment: Mapping[str, str], checkout: str
) -> tuple[list[str], int]:
    shell = environment.get(SHELL_VARIABLE, "")
    raw = ""
    if shell == "bash":
        words, raw = split_line(words[0])
    offers, code = offers_for(tasks, words[1:], checkout)
    if not shell:  # Invoke's scripts drop an empty last word
        offers += offers_for(tasks, [*words[1:], ""], checkout)[0]
    flag, equals, _ = words[-1].partition("=")
    head = f"{flag}=" if shell in {"bash", "fish"} and equals and flag.startswith("--") else ""
    whole = [Offer(f"{head}{word}", meaning) for word, meaning in offers if word.isprintable()]
    if shell == "bash":
        text = environment.get(TEXT_VARIABLE, "")
        return list(bash_replies((each.word for each in whole), raw, text)), code
    if not shell:
        return [each.word for each in whole], code
    return ["\t".join(each) if each.meaning else each.word for each in whole], code


def offers_for(tasks: Tasks, words: Sequence[str], checkout: str) -> tuple[list[Offer], int]:
    """Return what may stand in place of the last word, whatever it begins with, and the code."""
    *before, word = words
    at = find_position(tasks, before)
    argument = at.argument
    if word.startswith("-") and (argument is None or argument.positional):
        flag, equals, _ = word.partition("=")
        argument = at.context.flags[flag] if equals and flag in at.context.flags else None
        if argument is None:
            return [*_flag_offers(at)], NO_FILES
    if argument is None:
        is_first = at.context is tasks.core
        return [*(_task_offers(tasks) if is_first else _flag_offers(at))], NO_FILES
    kinds = str(getattr(argument, "values", "")).split()
    if TASKS_KIND in kinds:
        return _task_offers(tasks), NO_FILES
    local = LocalNames(at.given, checkout)
    found = dict.fromkeys(each for kind in kinds for each in local.values(kind))
    return [Offer(each) for each in found], FILES if FILES_KIND in kinds else NO_FILES


def find_position(tasks: Tasks, before: Iterable[str]) -> Position:
    """Return where the word after some words stands, as Invoke reads them."""
    context, given = tasks.core, dict[str, str]()
    lacking: list[Argument] = []
    waiting: Argument | None = None
    for word in before:
        flag, equals, value = word.partition("=")
        known = next((each for each in (context, tasks.core) if flag in each.flags), None)
        if waiting:
            given[plain_name(waiting)], waiting = word, None
        elif flag in context.inverse_flags:
            given[plain_name(context.flags[context.inverse_flags[flag]])] = ""
        elif word.startswith("-") and known:
            argument = known.flags[flag]
            given[plain_name(argument)] = value
            waiting = argument if argument.takes_value and not equals else None
            lacking = [each for each in lacking if each is not argument]
        elif lacking:
            given[plain_name(lacking.pop(0))] = word
        elif word in tasks.contexts:
            context, given = tasks.contexts[word], {}
            lacking = list(context.positional_args)
        elif word == "help" and context is tasks.core:
            waiting = tasks.core.flags["--help"]
    return Position(context, waiting or (lacking[0] if lacking else None), given)


def _task_offers(tasks: Tasks) -> list[Offer]:
    return [Offer(name, meaning) for name, meaning in tasks.meanings.items()]


def _flag_offers(at: Position) -> Iterator[Offer]:
    """Yield the long flags of a task that may still come, each as it changes something."""
    inverse = {main: each for each, main in at.context.inverse_flags.items()}
    for argument in sorted(at.context.flags.values(), key=plain_name):
        name = to_flag(plain_name(argument))
        if plain_name(argument) not in at.given or argument.kind is list:
            yield Offer(inverse.get(to_flag(argument.names[0]), name), argument.help or "")
    if "--help" not in at.context.flags:
        yield Offer("--help", "Show the help of this task.")


class LocalNames:
    """The values that this disk knows: names in hosts.toml, and in the folder of the stack."""

    def __init__(self, given: Mapping[str, str], checkout: str) -> None:
        self._given = given
        self._checkout = checkout
        self._kinds: Mapping[str, Callable[[], Iterable[str]]] = {
            "<runtags>": lambda: (each.runtag for each in self._sets()),
            "<vaults>": lambda: self._rows("vaults"),
            "<hosts>": lambda: self._rows("hosts"),
            "<services>": self._services,
            "<parts>": self._parts,
            "<backup-files>": self._backup_files,
            FILES_KIND: lambda: (),
            "<text>": lambda: (),
        }

    def values(self, kind: str) -> Iterable[str]:
        """Return the values of a kind such as `<vaults>`; of another word, the word itself.

        What cannot be read has none.
        """
        if not kind.startswith("<"):
            return (kind,)
        try:
            return tuple(self._kinds[kind]())
        except (IotstackError, OSError):
            return ()

    @cached_property
    def _content(self) -> Mapping[str, Any]:
        """Return what hosts.toml holds, unchecked; {} if it cannot be read."""
        from ..settings.model import load_content

        try:
            return load_content(self._given.get("settings", ""), checkout=self._checkout)[0]
        except SettingsError:
            return {}

    def _rows(self, table: str) -> list[str]:
        rows = self._content.get(table)
        names = (each.get("name") for each in rows or () if isinstance(each, dict))
        return [each for each in names if isinstance(each, str) and each]

    @property
    def _folder(self) -> str:
        from ..settings.keys import TABLES

        stack = self._content.get("stack")
        folder = stack.get("folder") if isinstance(stack, dict) else None
        default = TABLES["stack"]["folder"].default
        return os.path.expanduser(folder if isinstance(folder, str) else default)

    def _sets(self) -> list[BackupSet]:
        """Return the backups here, the newest first."""
        from ..backups.sets import gather_sets
        from ..core.stack_folders import BACKUPS
        from ..hosts.local import LocalHost

        found = gather_sets(LocalHost(self._folder).listdir(f"{self._folder}/{BACKUPS}"), None)
        return sorted(found, key=_made_s, reverse=True)

    def _services(self) -> list[str]:
        """Return the folders of services, which are named after their containers."""
        from ..core.stack_folders import FOLDERS

        found = set[str]()
        for top in FOLDERS:
            with contextlib.suppress(OSError), os.scandir(f"{self._folder}/{top}") as entries:
                found |= {e.name for e in entries if e.is_dir() and not e.name.startswith(".")}
        return sorted(found)

    def _parts(self) -> Iterable[str]:
        """Return the parts of the given backup, or of all that are here."""
        from ..backups.names import PARTS

        sets = self._sets()
        asked = [each for each in sets if each.runtag == self._given.get("runtag")] or sets
        found = {kind for each in asked for kind in each.archives}
        return [kind for kind in PARTS if kind in found]

    def _backup_files(self) -> Iterator[str]:
        from ..backups.names import KINDS
        from ..core.stack_folders import BACKUPS

        for each in self._sets():
            yield from (f"{BACKUPS}/{each.runtag}.{KINDS[kind]}" for kind in each.files)


def _made_s(backup: BackupSet) -> float:
    """Return when a backup was made: by its runtag, or else by its newest file here."""
    made = backup.made()
    return (
        made.timestamp() if made else max((e.modified_s for e in backup.files.values()), default=0)
    )
