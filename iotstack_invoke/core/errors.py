"""Every error that a user can meet, with its exit code. Nothing is printed here.

IotstackError               1    it failed
├── UsageError              2    the command line is wrong
│   ├── RuntagError              a name that cannot be a runtag
│   ├── SettingsError            hosts.toml is wrong
│   └── RuleError                two rules for a file, a cycle, a missing input
├── NotFound               10    no such backup
├── Busy                   11    another run holds the lock
├── Refused                13    a check before the run failed; nothing was changed
├── StepFailed              1    a step failed
│   ├── OldDataGone              the data to put back was removed by another program
│   └── Unreachable              a host did not answer
│       ├── WrongFolder          a vault's folder cannot hold a second copy
│       ├── TimedOut             a request did not finish in time
│       └── KeyRefused           its host key is unknown or has changed
└── Interrupted         128+n    Ctrl-C, SIGTERM, a closed terminal
"""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a script can learn from the exit code."""

    GOOD = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    NOT_FOUND = 10
    BUSY = 11
    REFUSED = 13


def ended(told: object) -> str:
    """Return a text, or the message of an error, with its full stop: many programs print none."""
    text = str(told)
    return text if text.endswith((".", "?", "!")) else f"{text}."


def bug_in(error: BaseException) -> str:
    """Return the kind of an unexpected error and where it arose: its text may quote a secret."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    file = posixpath.basename(trace.tb_frame.f_code.co_filename) if trace else "?"
    return f"{type(error).__name__} in {file}, line {trace.tb_lineno if trace else 0}"


class IotstackError(Exception):
    """A failure with a message for users: what failed, where, what is left, what to do next."""

    exit_code: int = ExitCode.FAILED


class UsageError(IotstackError):
    """The command line asks for something impossible."""

    exit_code = ExitCode.USAGE


class RuntagError(UsageError):
    """A name that cannot be a runtag."""


class SettingsError(UsageError):
    """The settings file is wrong; the message lists all its mistakes at once."""

    def __init__(self, text: str, mistakes: Iterable[str] = (), *, file: str = "") -> None:
        super().__init__(text)
        self.mistakes = tuple(mistakes)
        self.file = file


class RuleError(UsageError):
    """The rules contradict each other or cannot make what was asked for."""


class NotFound(IotstackError):
    """There is no such backup."""

    exit_code = ExitCode.NOT_FOUND


class Busy(IotstackError):
    """Another run holds the lock of this stack."""

    exit_code = ExitCode.BUSY


class Refused(IotstackError):
    """A check before the run failed; nothing was changed.

    `fix`: how to repair it, in sentences of its own, if the message `why` does not end with it.
    """

    exit_code = ExitCode.REFUSED

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(f"{why} {fix}".rstrip())
        self.why = why
        self.fix = fix


class StepFailed(IotstackError):
    """A step failed.

    `again`: the same step may well succeed when it is repeated. `damage`: what is wrong with an
    archive that was read. It is recorded, and other commands print it later: the message without
    the state of this run and without advice. If one thing repairs it, `fix` is that, a command if
    there is one, and `why` is the message without it.
    """

    def __init__(
        self,
        message: str,
        *,
        again: bool = False,
        damage: str = "",
        why: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(message)
        self.again = again
        self.damage = damage
        self.why = why or message
        self.fix = fix


class OldDataGone(StepFailed):
    """Data that was moved aside is gone, so it cannot be put back."""


class Unreachable(StepFailed):
    """A host did not answer, or refused the login."""


class FolderMissing(Unreachable):
    """A host answered, but the folder does not exist; the message says how to make it."""


class WrongFolder(Unreachable):
    """A vault's folder cannot hold a second copy; the vault is treated as unreachable."""


class TimedOut(Unreachable):
    """A request to a host or vault, or an upload, did not finish within its limit."""


class KeyRefused(Unreachable):
    """A host showed a key that is unknown, or differs from the known one."""

    exit_code = ExitCode.REFUSED


class Interrupted(IotstackError):
    """A signal asked the run to stop; `left` names what is not as before."""

    left: str = ""

    def __init__(self, signal_number: int) -> None:
        name = {2: "Ctrl-C", 1: "the closing of its terminal"}.get(signal_number)
        super().__init__(f"stopped by {name or signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number
