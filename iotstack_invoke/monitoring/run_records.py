"""The last run of each task, in one file each: how a run that was killed is found by the next one.

Others may write such a file: one that is not ours is ignored with a warning, and nothing in it is
run or used as a path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from urllib.parse import quote

from ..backups.manifest import read_utc, utc_text
from ..core.dataclass import dataclass
from ..hosts.local import LocalHost
from .run_event import KILLED, RunEvent
from .state import StateFile, moment_of, number_of, state_of

MOST_BYTES = 1 << 20
"""Of a file: JSON writes some letters in 12 bytes."""
MOST_MESSAGES = 20
MOST_CHARACTERS = 1_000
"""Of a message that is kept or sent."""
MOST_OF_HOST = 150
SECOND = "second/"
"""The beginning of the key of a run that found another one of its task active.

It is in a folder of its own: the last run of the task is the other one.
"""
_PID = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The last run of a task. `code` is None until it ends."""

    task: str
    host: str
    began_utc: str
    process: str
    """What distinguishes its process from any other: see process_mark."""
    ended_utc: str = ""
    code: int | None = None
    messages: tuple[str, ...] = ()
    invocation: str = ""
    """systemd's id of this start of its unit; '' if systemd did not start it."""
    is_told: bool = False
    """People know how it ended, or need not know."""

    @property
    def is_running(self) -> bool:
        """Whether it has no end yet, and its process still lives on this machine."""
        return self.code is None and self._has_process

    @property
    def is_silent(self) -> bool:
        """Whether it is over, and can no longer tell people how it ended: another run must.

        It was killed, perhaps while it told them, or it could reach none of them.
        """
        return (self.code is None or not self.is_told) and not self._has_process

    @property
    def _has_process(self) -> bool:
        pid = self.process.partition(" ")[0]
        return bool(_PID.fullmatch(pid)) and process_mark(int(pid)) == self.process

    @property
    def event(self) -> RunEvent:
        """Its event; a run without an end was killed."""
        ended = read_utc(self.ended_utc or self.began_utc)
        code = KILLED if self.code is None else self.code
        began = read_utc(self.began_utc)
        return RunEvent(self.task, self.host, began, ended, code, self.messages)


def process_mark(pid: int) -> str:
    """Return the id of a process, when it began, and the id of this boot; '' if it is gone.

    The number alone may be that of another process by now: proc(5), field 22 of stat.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{pid} {fields[19]} {boot}"


class RunRecords:
    """This user's records for the stack in a folder."""

    def __init__(self, stack: str) -> None:
        self.folder = f"{state_of(stack)}/runs"

    def last(self, key: str) -> RunRecord | None:
        """Return the last run of a task; None without one, or if its file cannot be believed."""
        return self._file(key).read(_read)

    def all(self) -> Iterator[tuple[str, RunRecord]]:
        """Yield the last run of each task that has one, with its key, by name."""
        names = LocalHost(self.folder).listdir(self.folder)
        for name in sorted(names):
            key, _, ending = name.rpartition(".")
            record = self.last(key) if ending == "json" else None
            if record:
                yield key, record

    def write(self, key: str, record: RunRecord) -> None:
        """Replace the record of a task; raises StepFailed, and the earlier one stays."""
        self._file(key).write(asdict(record))

    def _file(self, key: str) -> StateFile:
        return StateFile(f"{self.folder}/{key}.json", MOST_BYTES)


def begun(task: str, host: str) -> RunRecord:
    """Return the record of a run of this process that begins now."""
    invocation = os.environ.get("INVOCATION_ID", "")
    began = utc_text(datetime.now(UTC))
    return RunRecord(task, host, began, process_mark(os.getpid()), invocation=invocation)


def key_of(task: str, host: str) -> str:
    """Return the name of a record, which is one of a file: a task, and a given host, if any."""
    return f"{task}@{quote(host, safe='')[:MOST_OF_HOST]}" if host else task


def shortened(messages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the last messages, none of them long."""
    return tuple(
        f"{each[:MOST_CHARACTERS]}…" if len(each) > MOST_CHARACTERS else each
        for each in messages[-MOST_MESSAGES:]
    )


def _read(content: dict[str, object]) -> RunRecord:
    code, messages = content["code"], content["messages"]
    names = ("task", "host", "began_utc", "process", "ended_utc", "invocation")
    words = {name: content[name] for name in names}
    if not all(isinstance(each, str) for each in words.values()):
        raise TypeError
    if not isinstance(messages, list):
        raise TypeError
    if code is not None:
        number_of(code)
    moment_of(words["began_utc"])
    moment_of(words["ended_utc"] or words["began_utc"])
    lines = shortened(tuple(map(str, messages)))
    is_told = content.get("is_told", code is not None) is True  # an earlier version told at once
    return RunRecord(**words, code=code, messages=lines, is_told=is_told)  # type: ignore[arg-type]
