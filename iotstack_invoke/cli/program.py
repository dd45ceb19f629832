"""The program `iotstack`: the same tasks as `inv`, from any working directory."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import FrameType
from typing import IO, NoReturn, cast

from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext, to_flag
from invoke.parser.parser import ParseMachine
from invoke.program import Program

from .. import __version__
from ..core.errors import ExitCode, Interrupted, ended
from .tasks_and_flags import namespace

NEAR = 0.75
"""The similarity from which a known word is suggested for an unknown one."""
MOST_NEAR = 3
_UNKNOWN = re.compile(r"No idea what (?P<quote>['\"])(?P<word>.*)(?P=quote) is!", re.DOTALL)
_OF_CORE = {
    "help": "<tasks>",
    "print-completion-script": "bash zsh fish",
    "config": "<files>",
    "search-root": "<files>",
}
"""What the flags before the task take, as `values` of a task."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


SHOWN = ("help", "list[", "version", "print-completion-script", "dry")
"""The flags of Invoke that `--help` shows, by their beginnings."""


class IotstackProgram(Program):
    """Invoke's Program with suggestions for a wrong command line, and our exit code.

    The `inv` of a checkout becomes one when it has read tasks.py, which is after `parse_core`.
    """

    def core_args(self) -> list[Argument]:
        """Return Invoke's flags, with the values that a shell completes."""
        found = super().core_args()
        for each in found:
            vars(each)["values"] = _OF_CORE.get(each.names[0], "")
        return found

    def parse_core_args(self) -> None:
        """Read Invoke's flags; print our completion script if it is asked for."""
        super().parse_core_args()
        if shell := self.args["print-completion-script"].value:
            from .completion import SHELLS, script

            if shell not in SHELLS:
                _end_usage(f"--print-completion-script {shell}: use one of {', '.join(SHELLS)}.")
            sys.stdout.write(script(shell))
            raise Exit

    def print_help(self) -> None:
        """Print how the program is used; flags of Invoke that change nothing here are left out."""
        sys.stdout.write(f"Usage: {self.binary} TASK [OPTIONS]\n\nOptions before the task:\n\n")
        flags = self.initial_context.help_tuples()
        self.print_columns([each for each in flags if each[0].split("--")[-1].startswith(SHOWN)])
        self.list_tasks()
        sys.stdout.write(f"The options of a task: {self.binary} --help TASK\n")

    def parse_core(self, argv: list[str] | None) -> None:
        """Read the flags before the task."""
        self._or_usage(super().parse_core, argv)

    def parse_tasks(self) -> None:
        """Read the tasks and their flags; `help backup` is `--help backup`."""
        if self.args.complete.value:
            self._complete()
        words = self.core.unparsed
        if words[:1] == ["help"] and words[1:]:
            self.core.unparsed = [words[1], "--help"]
        try:
            self._or_usage(super().parse_tasks)
        except _HelpAsked as asked:
            with _until_enough(), _printing():
                self.print_task_help(str(asked))
                raise Exit from None

    def _complete(self) -> NoReturn:
        """Print what may come next in the command line after `--`."""
        from .completion import Tasks, answer

        meanings: dict[str, str] = {}
        for name, aliases in self.collection.task_names.items():
            told = (self.collection[name].__doc__ or "").strip().partition("\n")[0]
            meanings |= dict.fromkeys((name, *aliases), told)
        words = self.argv[self.argv.index("--") + 1 :] if "--" in self.argv else []
        checkout = str(self.collection.configuration().get("iotstack", {}).get("checkout", ""))
        tasks = Tasks(self.initial_context, self._make_parser().contexts, meanings)
        lines, code = answer(tasks, words, os.environ, checkout)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        raise Exit(code=code)

    def print_task_help(self, name: str) -> None:
        """Print the help of a task."""
        with contextlib.redirect_stdout(cast("IO[str]", _WrappedStdout(sys.stdout))):
            super().print_task_help(name)

    def parse_cleanup(self) -> None:
        """Handle the flags before the task: `--help backup`, `--list`."""
        task = self.args.list.value
        if isinstance(task, str):  # Invoke would list a namespace, and there is none
            _end_usage(f"--list {task}: this task has no subtasks. Its options: inv --help {task}")
        with _until_enough(), _printing():
            self._or_usage(super().parse_cleanup)

    def print_version(self) -> None:
        """Print our version, and Invoke's, on which `inv` runs."""
        from importlib.metadata import version

        sys.stdout.write(f"iotstack-invoke {__version__} (Invoke {version('invoke')})\n")

    def no_tasks_given(self) -> None:
        """List the tasks if none is given."""
        with _until_enough(), _printing():
            self.list_tasks()
            raise Exit

    def update_config(self, merge: bool = True) -> None:
        """Read the file of `--config`, which is Invoke's, not hosts.toml."""
        try:
            super().update_config(merge)
        except Exception as error:
            file = self.args.config.value
            if not file:
                raise
            _end_usage(
                f"--config {file} is not a configuration file for Invoke: {ended(str(error))} "
                f"For a settings file of this program use: inv TASK --settings {file}"
            )

    def _or_usage(self, parse: Callable[..., None], *arguments: object) -> None:
        try:
            parse(*arguments)
        except ParseError as error:
            names = tuple(self.collection.task_names) if hasattr(self, "collection") else ()
            _end_usage(usage_text(error, names))


class _WrappedStdout:
    """Stdout for what Invoke prints: lines wrap at whole words on a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        from ..reporting.wrapping import columns_of, wrapped

        self._stream = stream
        self._wrapped = partial(wrapped, width=columns_of(stream))

    def write(self, text: str) -> int:
        """Write one text of `print`: a line, or its end."""
        return self._stream.write(self._wrapped(text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _end_usage(text: str) -> NoReturn:
    """Print what is wrong with a command line, and exit."""
    from ..reporting.report import as_called
    from ..reporting.wrapping import columns_of, wrapped

    sys.stderr.write(f"{wrapped(as_called(text), columns_of(sys.stderr))}\n")
    sys.exit(int(ExitCode.USAGE))


class _HelpAsked(Exception):
    """A task's help was requested among its arguments."""


def usage_text(error: ParseError, tasks: Collection[str]) -> str:
    """Return Invoke's message about a command line, with a correction."""
    import difflib
    import shlex

    from ..reporting.report import as_called

    context = error.context
    task, flags = (context.name, tuple(context.flags)) if context else (None, ())
    if context and "did not receive required positional" in str(error):
        return as_called(_missing_text(context))
    found = _UNKNOWN.fullmatch(str(error))
    word = found["word"] if found else ""
    hint, known = "", flags if word.startswith("-") else tasks
    naming = [each for each in flags if each != "--at" or _takes_a_vault(context)]
    called = f"inv {task}" if task else "inv"
    if f"--{word}" in flags:
        hint = f"Use: {called} --{word}"
    elif word and (begun := _runtag_before(context)):
        hint = f"A name with spaces needs quotes: {called} {begun} {word} …'"
    elif names := _names_of(word, naming):
        hint = "; ".join(f"{what}: {called} {flag} {shlex.quote(word)}" for what, flag in names)
        hint = f"To name {hint}"
    elif task and word in _OF_VAULTS:
        own = next((each for each in _OF_VAULTS if each in naming), "")
        hint = f"To name a vault: {called} {own} NAME" if own else _NO_VAULT.get(task, "")
    elif near := difflib.get_close_matches(word, known, MOST_NEAR, NEAR) if word else ():
        hint = f"Did you mean {' or '.join(near)}?"
    more = f"All its options: inv --help {task}" if task else "All tasks: inv --list"
    said = _unknown_text(word, task, called) if found else ended(str(error))
    return as_called(f"{said} {hint} ({more})" if hint else f"{said} {more}")


def _takes_a_vault(context: ParserContext | None) -> bool:
    """Return whether `--at` names a vault: for some tasks it is a time of day."""
    flag = context.flags["--at"] if context else None
    return "<vaults>" in getattr(flag, "values", "")


def _unknown_text(word: str, task: str | None, called: str) -> str:
    """Return what is wrong with an unexpected word."""
    if word.startswith("-"):
        return f"{called} has no option {word}."
    return f"{called} takes no argument {word!r} here." if task else f"There is no task {word!r}."


def _missing_text(context: ParserContext) -> str:
    """Return what to add if a task lacks a required argument, with suggestions."""
    lacking = context.missing_positional_args
    words = " ".join(str(each.name).upper() for each in lacking)
    said = " ".join(f"{str(each.name).upper()}: {ended(str(each.help))}" for each in lacking)
    given = (str(each.value) for each in context.positional_args if each.value)
    called = " ".join(("inv", str(context.name), *given))
    more = f"All its options: inv --help {context.name}"
    return f"An argument is missing. Use: {called} {words}. {said} {more}"


def _runtag_before(context: ParserContext | None) -> str:
    """Return the beginning of a quoted runtag, if another word follows a runtag."""
    args = context.args if context else {}
    given = [(name, args[name]) for name in ("after", "before", "runtag") if name in args]
    for name, each in given:
        if each.got_value and " " not in str(each.value):
            return f"'{each.value}" if each.positional else f"--{name} '{each.value}"
    return ""


def _names_of(word: str, flags: Collection[str]) -> list[tuple[str, str]]:
    """Return what a word may name, each with the flag of a task that takes it: by its form."""
    from ..core.runtag import LATEST, is_runtag, runtag_time

    if not is_runtag(word):
        return []
    named = [(what, flag) for what, flag in _NAMING if flag in flags]
    is_told = word == LATEST or runtag_time(word) or " " in word
    return [each for each in named if each[1] == "--runtag" or not is_told]


_NAMING = (
    ("a backup", "--runtag"),
    ("a vault", "--at"),
    ("a vault", "--vault"),
    ("a vault", "--from"),
    ("a host", "--host"),
)
"""Kinds of names given without their flag, and the flag."""
_OF_VAULTS = (*(flag for what, flag in _NAMING if what == "a vault"), "--to")
"""The flags that name a vault, or that users expect to name one."""
_NO_VAULT = {
    "list": "It always lists here and every vault.",
    "init": "To name a place for copies: inv init --copies PLACE",
}
"""Tasks for which a vault cannot be named, and why."""


def _complete_flag(machine: ParseMachine) -> None:
    """Refuse a flag without a value, or with a blank one, each time; raises ParseError.

    Invoke treats such a flag as omitted if it may be given several times: a restore with an empty
    `--only` would be one of everything, and an empty `--host` this machine. Scripts pass a blank
    value if a variable is not set: most flags would take it for their default.
    """
    flag = machine.flag
    if flag and flag.takes_value and not flag.optional and not machine.flag_got_value:
        machine.error(f"{to_flag(flag.names[0])} needs a value.")
    if flag and isinstance(flag.raw_value, str) and not flag.raw_value.strip():
        machine.error(f"{to_flag(flag.names[0])} is empty.")
    _invokes_complete_flag(machine)


_invokes_complete_flag = ParseMachine.complete_flag
ParseMachine.complete_flag = _complete_flag  # type: ignore[assignment, method-assign]


def _complete_context(machine: ParseMachine) -> None:
    """Give a runtag that may be omitted its default: Invoke requires each positional argument."""
    for each in machine.context.missing_positional_args if machine.context else ():
        if unless_given := getattr(each, "unless_given", ""):
            each.set_value(unless_given, cast=False)
    _invokes_complete_context(machine)


_invokes_complete_context = ParseMachine.complete_context
ParseMachine.complete_context = _complete_context  # type: ignore[assignment, method-assign]


def _help_for(context: ParserContext, flag: str) -> tuple[str, str]:
    """Return a flag and its help; a repeatable flag takes a value each time, -v none."""
    name, told = _invokes_help_for(context, flag)
    if context.flags[flag].incrementable:
        return name.replace(" INT", "").replace("=INT", ""), told
    return (f"{name}=STRING" if context.flags[flag].kind is list else name), told


_invokes_help_for = ParserContext.help_for
ParserContext.help_for = _help_for  # type: ignore[assignment, method-assign]


def _handle(machine: ParseMachine, token: str) -> None:
    """Treat `--help` after a task as a request for help, not as an expected value."""
    if token in {"--help", "-h"} and machine.context and machine.context.name:
        raise _HelpAsked(machine.context.name)
    _invokes_handle(machine, token)


_invokes_handle = ParseMachine.handle
ParseMachine.handle = _handle  # type: ignore[assignment, method-assign]


program = IotstackProgram(name="iotstack", namespace=namespace, version=__version__)


def tell_stops() -> None:
    """Exit with our exit code if a signal asks to stop, even while no task runs.

    A task has its own handlers and restores these. Once Python shuts down, all work and output
    are complete: a signal changes nothing any more.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _end)
    atexit.register(_let_stops_pass)


def _end(number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):  # it may be in use by an interrupted write
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{Interrupted(number)}\n".encode())
    os._exit(128 + number)


def _let_stops_pass() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def open_streams() -> None:
    """Open each standard stream that was closed, as by `2>&-`; a write to it fails then.

    Otherwise the next file that is opened would have its number, and get what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDONLY)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def main() -> None:
    """Run the command line."""
    open_streams()
    tell_stops()
    with _until_enough():
        program.run()


@contextlib.contextmanager
def _until_enough() -> Iterator[None]:
    """Ignore a closed pipe while Invoke prints: `| head` stops reading."""
    try:
        try:
            yield
        finally:
            with _printing():
                sys.stdout.flush()
    except BrokenPipeError:
        _pass_over_output()
        sys.exit(128 + signal.SIGPIPE)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Exit if the block, which only prints, cannot: as into a full disk."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _pass_over_output()
        with contextlib.suppress(OSError):
            sys.stderr.write(f"Cannot write the output: {error.strerror}.\n")
        sys.exit(int(ExitCode.FAILED))


def _pass_over_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
