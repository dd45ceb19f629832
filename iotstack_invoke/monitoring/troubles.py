"""The troubles that people know of, so that each is one notification. Pure but for its file."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta

from ..backups.manifest import read_utc, utc_text
from ..core.dataclass import dataclass
from ..hosts.local import locked_within
from .state import StateFile, make_state_folder, moment_of, state_of

AGAIN_AFTER = timedelta(days=7)
"""After this long, a trouble that goes on is a notification once more."""
PROBLEM = "problem "
"""The beginning of the key of a problem; the others are tasks."""
MOST_BYTES = 1 << 22
"""Of the file: the messages of each task may have 20,000 letters, some in 12 bytes of JSON."""
LOCK_LIMIT_S = 10.0
_RUNTAGS = re.compile(r"\d{4}-\d\d-\d\d_\d{4}(-\d+)?(, \d{4}-\d\d-\d\d_\d{4}(-\d+)?)*")
_AWAY = re.compile(r"( is unreachable): .*")
"""One time a machine that is off does not answer, another time there is no route to it."""
_NUMBERS = re.compile(r"\d+")
_COUNTED = re.compile(r"\b0 (\w+?)s\b")
"""A number of things."""
_PROGRAM = re.compile(r"\b(inv|iotstack) (?=[a-z])")
"""How the program was started."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is not good now, and when its notification was sent."""

    occasion: str
    """failure or warning."""
    text: str
    since_utc: str
    notified_utc: str


Troubles = Mapping[str, Trouble]
"""By what they are about: a task, or a problem's key."""


def gist_of(text: str) -> frozenset[str]:
    """Return the lines by which a trouble is known again.

    They are without names of backups, times, sizes, and the steps that failed for one reason.
    """
    return frozenset(map(_gist_of_line, text.splitlines()))


def _gist_of_line(line: str) -> str:
    text = _PROGRAM.sub("", _RUNTAGS.sub("0", line))
    text = _NUMBERS.sub("0", _AWAY.sub(r"\1", text))
    text = _COUNTED.sub(r"0 \1", text).replace("copies them there", "copies it there")
    return text.partition(": ")[2] or text if line.startswith("  ") else text


def explained(messages: Iterable[str], troubles: Mapping[str, str]) -> frozenset[str]:
    """Return the vaults that cannot be read, if all that a run told follows from that; else none.

    `troubles`: why each of them cannot, by name.
    """
    lines = [line for each in messages for line in each.splitlines() if line.strip()]
    reasons = {name: _gist_of_line(why).partition(". ")[0] for name, why in troubles.items()}
    found = set()
    for line, below in zip(lines, (*lines[1:], ""), strict=False):
        names = {name for name, why in reasons.items() if why in _gist_of_line(line)}
        names |= {
            name for name in troubles if line.strip().startswith(f"Cannot tell what {name} ")
        }
        is_headline = below.startswith("  ") and not line.startswith("  ")
        if not names and not is_headline:
            return frozenset()
        found |= names
    return frozenset(found)


def judge(
    troubles: Troubles, key: str, occasion: str, text: str, now: datetime
) -> tuple[str, dict[str, Trouble]]:
    """Return the occasion of the notification to send, '' for none, and the troubles from now on.

    `occasion`: failure or warning, or '' if all is good.
    """
    known = troubles.get(key)
    others = {name: each for name, each in troubles.items() if name != key}
    if not occasion:
        return ("recovered" if known else ""), others
    told = utc_text(now)
    if known is None:
        return occasion, {**others, key: Trouble(occasion, text, told, told)}
    is_same = known.occasion == occasion and gist_of(text) <= gist_of(known.text)
    if is_same and timedelta() <= now - read_utc(known.notified_utc) < AGAIN_AFTER:
        return "", {**others, key: replace(known, text=text)}  # what is over may come again
    return occasion, {
        **others,
        key: replace(known, occasion=occasion, text=text, notified_utc=told),
    }


class TroubleFile:
    """This user's file of the troubles of the stack in a folder."""

    def __init__(self, stack: str) -> None:
        self._file = StateFile(f"{state_of(stack)}/troubles.json", MOST_BYTES)

    def read(self) -> dict[str, Trouble]:
        """Return the troubles; {} without a file, or if it cannot be read."""
        return self._file.read(_read) or {}

    def write(self, troubles: Troubles) -> None:
        """Replace the file; raises StepFailed, and the earlier one stays."""
        self._file.write({key: asdict(each) for key, each in troubles.items()})

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the file: two runs that end together must not both tell it.

        Raises Busy after LOCK_LIMIT_S, and StepFailed if it cannot be made.
        """
        make_state_folder(os.path.dirname(self._file.path))
        with locked_within(LOCK_LIMIT_S, f"{self._file.path}.lock", "a notification"):
            yield


def _read(content: Mapping[str, Mapping[str, object]]) -> dict[str, Trouble]:
    return {str(key): _read_one(each) for key, each in content.items()}


def _read_one(content: Mapping[str, object]) -> Trouble:
    words = {key: content[key] for key in ("occasion", "text", "since_utc", "notified_utc")}
    if not all(isinstance(each, str) for each in words.values()):
        raise TypeError
    found = Trouble(**words)  # type: ignore[arg-type]
    moment_of(found.since_utc)
    moment_of(found.notified_utc)
    return found
