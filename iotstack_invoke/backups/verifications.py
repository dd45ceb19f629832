"""The results of verifications: an append-only file of JSON lines, one per verified copy.

The newest line of a set in one place counts; an incomplete line is ignored. The file has a
separate lock: a verification of hours must not block backups.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from .. import __version__
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..core.runtag import is_runtag
from ..hosts.base import PARTIAL
from ..hosts.local import LocalHost, locked_within, opened, words_of
from ..hosts.trust import believed
from .manifest import read_utc, utc_text

PROGRAM = f"iotstack-invoke {__version__}"
CHECKS_FILE = ".checks.jsonl"
HERE = "here"
"""The place of this machine's own backups, instead of a vault's name."""
MOST_LINES_EACH = 10
"""With more lines than this for each that counts, the file is rewritten."""
LOCK_LIMIT_S = 10.0
"""The lock is held for one line, or for rewriting the file once."""


def in_places(where: str) -> str:
    """Return a phrase for places; they are given in the order of lists, this machine first."""
    first, _, others = where.partition(", ")
    if first != HERE:
        return f"in {where}"
    return f"here or in {others}" if others else "here"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying one set in one place; good if there are no problems.

    `how`: `read`, every archive to its end; `hash`, by the SHA-256 that the vault computed;
    `restore`, by a rehearsal; `unpack`, by one without an engine to load InfluxDB's dump.
    `made`: when that set was finished, by its manifest; '' if it had no readable one.
    Without one a set can be read to its end, but there is nothing to compare it with.
    """

    runtag: str
    at: str
    utc: str
    how: str
    good: bool
    problems: tuple[str, ...] = ()
    program: str = ""
    made: str = ""

    @property
    def verdict(self) -> str:
        """`good`, `damaged`, or `unproven` if there was nothing to compare with."""
        if not self.good:
            return "damaged"
        return "good" if self.made or self.how == "restore" else "unproven"


Checks = Mapping[tuple[str, str], Verification]
"""The newest check of each set in each place, by runtag and place."""


def read_checks(lines: Iterable[str]) -> dict[tuple[str, str], Verification]:
    """Return the newest check of each set in each place; an incomplete line is skipped."""
    found: dict[tuple[str, str], Verification] = {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            check = _read(json.loads(line))
            found.pop((check.runtag, check.at), None)  # moves it to the end, where the newest are
            found[check.runtag, check.at] = check
    return found


def _read(content: Mapping[str, object]) -> Verification:
    words = {key: content[key] for key in ("runtag", "at", "utc", "how", "program", "made")}
    problems, good = content["problems"], content["good"]
    if not isinstance(problems, list) or not isinstance(good, bool):
        raise TypeError
    if not all(isinstance(each, str) for each in (*words.values(), *problems)):
        raise TypeError
    check = Verification(good=good, problems=tuple(problems), **words)  # type: ignore[arg-type]
    read_utc(check.utc)
    if not is_runtag(check.runtag):
        raise ValueError(check.runtag)
    return check


def check_line(check: Verification) -> str:
    """Return a check as one line of JSON."""
    return json.dumps(asdict(check))  # ASCII: a problem may quote a name that is not UTF-8


def failed_at(checks: Checks, at: str) -> dict[str, str]:
    """Return the runtags that failed their last verification in a place, and their `made`."""
    return {
        check.runtag: check.made for check in checks.values() if check.at == at and not check.good
    }


def damage_found(runtag: str, at: str, made: str, damages: tuple[str, ...]) -> Verification:
    """Return the check of a set that a restore, or a rehearsal, found to be damaged."""
    now = utc_text(datetime.now(UTC))
    return Verification(
        runtag, at, now, "read", good=False, problems=damages, program=PROGRAM, made=made
    )


class VerificationLog:
    """The file of the checks on this machine."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._host = LocalHost(os.path.dirname(path))
        self._known_bytes: int | None = None
        """The file size for which the next two fields hold: the file is read once, not for each of
        thousands of checks."""
        self._count = 0
        """The number of its lines."""
        self._kept: set[tuple[str, str]] = set()
        """The sets and places that have a check in it."""

    def newest(self) -> dict[tuple[str, str], Verification]:
        """Return the checks that count; {} if there is no file yet."""
        return read_checks(self._lines())

    def add(self, check: Verification) -> None:
        """Append a check so that it survives a power cut; raises StepFailed if that fails."""
        folder = os.path.dirname(self.path)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StepFailed(f"Cannot create {folder}: {words_of(error)}.") from error
        with locked_within(LOCK_LIMIT_S, f"{self.path}.lock", "the record of a verification"):
            before = self._size_bytes()
            if before != self._known_bytes:
                lines = self._lines()
                self._count, self._kept = len(lines), set(read_checks(lines))
            # A line appended to an incomplete one would be lost with it.
            torn = "\n" if before != self._known_bytes and self._is_torn() else ""
            self._host.append(self.path, torn + check_line(check))
            self._count += 1
            self._kept.add((check.runtag, check.at))
            if self._count > MOST_LINES_EACH * len(self._kept):
                self._write_anew(self.newest().values())
                self._count = len(self._kept)
            self._known_bytes = self._size_bytes()

    def _lines(self) -> list[str]:
        if not believed(self._host, self.path):
            return []
        try:
            with open(self.path, encoding="utf-8", errors="replace", opener=opened) as stream:
                return stream.readlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StepFailed(
                f"Cannot read the verification log {self.path}: {error.strerror}. "
                "Without it, known damage cannot be reported: restore its owner, or remove it."
            ) from error

    def _size_bytes(self) -> int:
        """Return the size of the file, -1 if it does not exist."""
        fact = self._host.stat([self.path]).get(self.path)
        return fact.size_bytes if fact else -1

    def _is_torn(self) -> bool:
        """Return whether the last line is incomplete."""
        lines = self._lines()
        return bool(lines) and not lines[-1].endswith("\n")

    def _write_anew(self, checks: Iterable[Verification]) -> None:
        partial = self.path + PARTIAL
        with self._host.create(partial) as stream:
            stream.writelines(check_line(each).encode() + b"\n" for each in checks)
        self._host.rename(partial, self.path)
