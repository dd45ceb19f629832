"""Every error that a person can meet, with its exit code. Nothing is printed here.

IotstackError               1    it failed
├── UsageError              2    the command line is wrong
│   ├── RuntagError              a name that cannot be a runtag
│   ├── SettingsError            hosts.toml is wrong
│   └── RuleError                two rules for a file, a cycle, a missing input
├── NotFound               10    no such backup
├── Busy                   11    another run holds the lock
├── Refused                13    a check said no, and nothing was changed
├── StepFailed              1    something we asked for was not done
│   ├── OldDataGone              what it would put back was removed by others
│   └── Unreachable              a host did not answer
│       ├── WrongFolder          a vault's folder is one in which no second copy can be
│       ├── TimedOut             what was asked of it did not end in time
│       └── KeyRefused           its host key is not known, or is another one
└── Interrupted         128+n    Ctrl-C, SIGTERM, a closed terminal
"""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """What a script can learn from how we ended."""

    GOOD = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    NOT_FOUND = 10
    BUSY = 11
    REFUSED = 13


def ended(told: object) -> str:
    """Return a text, or what an error says, with its full stop, as programs often say none."""
    text = str(told)
    return text if text.endswith((".", "?", "!")) else f"{text}."


class IotstackError(Exception):
    """A failure with a message for people: what failed, where, what is left, what to do next."""

    exit_code: int = ExitCode.FAILED


class UsageError(IotstackError):
    """The command line asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class RuntagError(UsageError):
    """A name that cannot be a runtag."""


class SettingsError(UsageError):
    """The settings file is wrong; the message lists all its mistakes at once."""


class RuleError(UsageError):
    """The rules contradict each other or cannot make what was asked for."""


class NotFound(IotstackError):
    """There is no such backup."""

    exit_code = ExitCode.NOT_FOUND


class Busy(IotstackError):
    """Another run holds the lock of this stack."""

    exit_code = ExitCode.BUSY


class Refused(IotstackError):
    """A check before the run said no; nothing was changed."""

    exit_code = ExitCode.REFUSED


class StepFailed(IotstackError):
    """A step was not done.

    `again` tells that the same step may well succeed when it is done once more; `damage`, what is
    wrong with an archive that was read. That is recorded, and told by other commands later: it is
    the message without what became of this run and what to do now. Where one thing mends it, `fix`
    is that, a command if there is one, and `why` the message without it.
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
    """What was moved aside is not there any more, so that it cannot be put back."""


class Unreachable(StepFailed):
    """A host did not answer, or did not let us in."""


class FolderMissing(Unreachable):
    """A host answered, and has no such folder; the message says how to make it."""


class WrongFolder(Unreachable):
    """A vault is in a folder in which no second copy can be; it is used as little as one away."""


class TimedOut(Unreachable):
    """What a place was asked, or sent, did not end within its limit."""


class KeyRefused(Unreachable):
    """A host showed a key that is not known, or another one than is known."""

    exit_code = ExitCode.REFUSED


class Interrupted(IotstackError):
    """A signal asked us to stop; `left` tells what is left, where that is not as it was before."""

    left: str = ""

    def __init__(self, signal_number: int) -> None:
        name = {2: "Ctrl-C", 1: "the closing of its terminal"}.get(signal_number)
        super().__init__(f"stopped by {name or signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number
