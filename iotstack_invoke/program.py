"""The program `iotstack`: the same doors as `inv`, from any working directory."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from types import FrameType

from invoke.exceptions import ParseError
from invoke.program import Program

from . import __version__
from .errors import ExitCode, Interrupted
from .tasks import namespace

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class IotstackProgram(Program):
    """Invoke's Program, which ends with our exit code where the command line is wrong."""

    def parse_core(self, argv: list[str] | None) -> None:
        """Read the flags before the task."""
        self._or_usage(super().parse_core, argv)

    def parse_tasks(self) -> None:
        """Read the tasks and their flags."""
        self._or_usage(super().parse_tasks)

    @staticmethod
    def _or_usage(parse: object, *arguments: object) -> None:
        try:
            parse(*arguments)  # type: ignore[operator]
        except ParseError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(int(ExitCode.USAGE))


program = IotstackProgram(name="iotstack", namespace=namespace, version=__version__)


def tell_stops() -> None:
    """Let a signal that asks us to stop end us with our exit code, also while no task runs.

    A task has handlers of its own and gives these back. Once Python takes itself apart, all is
    done and told: a signal changes nothing any more.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _end)
    atexit.register(_let_stops_pass)


def leave_stops() -> None:
    """Let these signals do what they do in any Python program."""
    atexit.unregister(_let_stops_pass)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):  # it may be in the midst of being written to
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{Interrupted(number)}\n".encode())
    os._exit(128 + number)


def _let_stops_pass() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Run the command line."""
    tell_stops()
    try:
        try:
            program.run()
        finally:
            sys.stdout.flush()  # what Invoke itself prints
    except BrokenPipeError:  # `| head` has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
