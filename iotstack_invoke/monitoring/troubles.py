"""The troubles that people know of, so that each is one notification. Pure but for its file."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta

from ..backups.manifest import read_utc, utc_text
from ..core.dataclass import dataclass
from ..hosts.base import PARTIAL
from ..hosts.local import LocalHost, locked_within, opened
from ..hosts.trust import believed
from .state import UNREADABLE, state_of

AGAIN_AFTER = timedelta(days=7)
"""After this long, a trouble that goes on is a notification once more."""
PROBLEM = "problem "
"""The beginning of the key of a problem; the others are tasks."""
MOST_BYTES = 1 << 18
LOCK_LIMIT_S = 10.0
_NUMBERS = re.compile(r"\d+")


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


def gist_of(text: str) -> str:
    """Return a text without its numbers, by which it is known again: times and sizes differ."""
    return _NUMBERS.sub("0", text)


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
    is_same = known.occasion == occasion and gist_of(known.text) == gist_of(text)
    if is_same and timedelta() <= now - read_utc(known.notified_utc) < AGAIN_AFTER:
        return "", {**troubles}
    return occasion, {
        **others,
        key: replace(known, occasion=occasion, text=text, notified_utc=told),
    }


class TroubleFile:
    """The file of the troubles. One that others may have written is ignored, with a warning."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._host = LocalHost(os.path.dirname(path))

    @classmethod
    def of_stack(cls, stack: str) -> TroubleFile:
        """Return this user's file for the stack in a folder."""
        return cls(f"{state_of(stack)}/troubles.json")

    def read(self) -> dict[str, Trouble]:
        """Return the troubles; {} without a file, or if it cannot be read."""
        if not believed(self._host, self.path):
            return {}
        with contextlib.suppress(*UNREADABLE):
            with open(self.path, "rb", opener=opened) as stream:
                content = json.loads(stream.read(MOST_BYTES))
            return {str(key): _read(each) for key, each in content.items()}
        return {}

    def write(self, troubles: Troubles) -> None:
        """Replace the file; raises StepFailed, and the earlier one stays."""
        with self._host.create(f"{self.path}{PARTIAL}") as stream:
            stream.write(
                json.dumps({key: asdict(each) for key, each in troubles.items()}).encode()
            )
        self._host.rename(f"{self.path}{PARTIAL}", self.path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the file: two runs that end together must not both tell it."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        with locked_within(LOCK_LIMIT_S, f"{self.path}.lock", "a notification"):
            yield


def _read(content: Mapping[str, object]) -> Trouble:
    words = {key: content[key] for key in ("occasion", "text", "since_utc", "notified_utc")}
    if not all(isinstance(each, str) for each in words.values()):
        raise TypeError
    found = Trouble(**words)  # type: ignore[arg-type]
    read_utc(found.since_utc)
    read_utc(found.notified_utc)
    return found
