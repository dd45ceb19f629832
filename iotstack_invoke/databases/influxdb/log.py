"""What `influxd backup` and `influxd restore` of InfluxDB 1.x print, and what that proves.

The grammar knows every line captured from 1.6.7 and 1.8.10. A good log proves little: a shard cut
on its way and a restore into a full disk both exit 0 with every line in place. So a verdict here
can only find failures; `check.py` verifies that a dump is complete.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final

from ...core.dataclass import dataclass
from .meta import INTERNAL, Catalogue


class Level(Enum):
    """How bad one line is by itself; the verdict weighs all of them."""

    PROGRESS = "progress"
    HARMLESS = "harmless"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line and what it means; `say` is "" if users need not see it.

    Names may hold blanks, dots, even ` rp=y shard=3`: take `database` for show, ids for sure.
    """

    level: Level
    text: str
    say: str = ""
    shard: int | None = None
    database: str | None = None
    file: str | None = None
    retry_bytes: int | None = None  # received before a retry; above 0 the shard's file is broken
    known: bool = True


@dataclass(frozen=True, slots=True)
class BackupVerdict:
    """What the log of a whole backup shows; no problems means only that the log is good."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]  # unknown lines, retries
    again: bool  # a second dump may cure the problems
    shards: frozenset[int]  # those with a finished file, _internal's included


@dataclass(frozen=True, slots=True)
class SkippedShards:
    """Shards of one database that the server refused."""

    database: str
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RestoreVerdict:
    """What the log of a whole restore shows; no problems means only that the log is good."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    restored: frozenset[int]
    skipped_internal: int
    skipped: tuple[SkippedShards, ...]  # without _internal
    metadata_refused: bool  # `explain_metadata_refusal` gives the reason; it may even be success


class Refusal(Enum):
    """Why InfluxDB printed "DB metadata not changed"; only one of these is success."""

    DAMAGED = "the catalogue cannot be read"
    NOT_IN_DUMP = "a name asked for is not in the dump"
    NOTHING_TO_LOAD = "success: there were no shards to load"
    EXISTS = "a database exists already"
    LARGE = "the catalogue may be too large for InfluxDB 1.5 and 1.6"
    UNKNOWN = "none of the known causes"


@dataclass(frozen=True, slots=True)
class RefusalCause:
    """The cause of a refusal and the sentence for people."""

    refusal: Refusal
    say: str

    @property
    def success(self) -> bool:
        """Whether the server has all that the dump holds, in spite of the message."""
        return self.refusal is Refusal.NOTHING_TO_LOAD


LARGEST_SEEN_FINE_BYTES: Final = 94_000
"""A catalogue of this size was restored on 1.6.7 in five of five tries (influxdb#9968)."""


class _Kind(Enum):
    """What a verdict needs to know of a line beyond its level."""

    BEGUN = auto()  # a shard's dump began
    WINDOW = auto()  # the same, for a part of its time span
    FINISHED = auto()  # a file of the finished dump
    PORTABLE = auto()
    DONE = auto()
    RETRY = auto()
    LOADED = auto()
    SKIPPED = auto()
    REFUSED = auto()
    LAST = auto()  # `backup: …`, `restore: …`: repeats a line that had a date
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class _Rule:
    level: Level
    pattern: str
    say: str = ""
    kind: _Kind = _Kind.OTHER


_step = partial(_Rule, Level.PROGRESS)
_harmless = partial(_Rule, Level.HARMLESS)
_warning = partial(_Rule, Level.WARNING)
_error = partial(_Rule, Level.ERROR)
_T = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "
_WHY = r"(?P<why>.*?)\.?"
_ID = r"shard (?P<shard>\d+)"
_NO_SPACE = "no space left on device"
_AGAIN = "Dump again into a new, empty folder."
# The path repeats the three names as DB.RP.NNNNN.00, which identifies unusual names reliably.
_SHARD = (
    rf"{_T}backing up db=(?P<database>.+) rp=(?P<rp>.+) shard=(?P<shard>\d+)"
    r" to (?:.*/)?(?P=database)\.(?P=rp)\.0*(?P=shard)\.\d\d "
)
_SKIPPED = rf"{_T}Meta info not found for {_ID} on database (?P<database>"
_FILE = r"\. Skipping shard file (?P<file>\S+)"
_EITHER: Final = (
    _error(rf"(panic|fatal error): {_WHY}", "influxd crashed: {why}"),
    # The rest of a Go trace.
    _error(
        r"(goroutine \d+|created by|\[signal) .*|\t\S+\.go:\d+.*|([\w./-]+\.[^ ]+|panic)\(.*\)"
    ),
    _harmless(  # printed for -h and a wrong flag; a blank line follows some messages
        r"| {2,}.*|Usage: .*|Options:|Note: Restore using .*|flag provided but not defined: .*"
        r"|Creates a backup copy of .*|Uses backup copies from .*|format to PATH .*",
    ),
)
_BACKUP: Final = (
    _step(rf"{_T}backing up metastore to .+", "saving the catalogue"),
    _step(rf"{_T}No database, retention .* Full meta store backed up\."),
    _step(rf"{_T}Backing up all databases in portable format", kind=_Kind.PORTABLE),
    _step(rf"{_SHARD}since 0001-01-01T00:00:00Z", "shard {shard} of {database}", _Kind.BEGUN),
    _warning(
        rf"{_SHARD}(since \S+|with boundaries start=\S+, end=\S+)",
        "shard {shard} of {database}, but only a window of time",
        _Kind.WINDOW,
    ),
    _step(rf"{_T}backing up (db=(?P<database>.*)|rp=.* since \S+)"),
    _step(rf"{_T}backup complete:", kind=_Kind.DONE),
    _step(rf"{_T}\t(?P<file>.+?(\.s(?P<shard>\d+)\.tar\.gz)?)", kind=_Kind.FINISHED),
    _warning(
        rf"{_T}Download {_ID} failed (?P<why>.*?(, n=(?P<retry_bytes>\d+))?)"
        r"\.  Waiting \S+ and retrying \((?P<turn>\d+)\)\.\.\.",
        "no answer for shard {shard}, InfluxDB tries again ({turn} of 10): {why}",
        _Kind.RETRY,
    ),
    _error(
        rf"{_T}error \({_WHY}\) when backing up db: (?P<database>.+), rp .+, {_ID}\. contin.*",
        "shard {shard} of {database} failed: {why}",
    ),
    _error(
        rf"{_T}Invalid metadata blob, ensure the metadata service is running .*",
        "what answers is not InfluxDB's backup service (port 8088)",
    ),
    _error(rf"{_T}(backup|manifest save) failed: {_WHY}", "{why}"),
    _error(rf"backup: {_WHY}", "{why}", _Kind.LAST),
    *_EITHER,
)
_RESTORE: Final = (
    _step(rf"{_T}Restoring {_ID} live from backup (?P<file>.+)", "shard {shard}", _Kind.LOADED),
    # The import leaves _internal out by design, influxdb#9565.
    _harmless(rf"{_SKIPPED}{INTERNAL}){_FILE}", kind=_Kind.SKIPPED),
    _error(rf"{_SKIPPED}.+){_FILE}", "shard {shard} of {database} NOT restored", _Kind.SKIPPED),
    _error(
        rf"({_T}error updating meta|restore): DB metadata not changed\. database may .* exist",
        "the catalogue was not taken, so no data was loaded",
        _Kind.REFUSED,
    ),
    _error(rf"{_T}error updating meta: {_WHY}", "nothing was restored: {why}"),
    _error(
        rf"{_T}error updating shards: {_WHY}",
        "it stopped midway; drop the databases, they are incomplete, before another try: {why}",
    ),
    _error(r"restore: No manifest files found in: (?P<file>.+)", "no finished dump in {file}"),
    _error(
        rf"restore: restore failed while processing manifest files: {_WHY}",
        "the dump's manifest is damaged: {why}",
    ),
    _error(r"restore: backup path should be a valid directory: (?P<file>.+)", "no folder {file}"),
    _error(rf"restore: {_WHY}", "{why}", _Kind.LAST),
    _warning(  # the legacy mode mixes up shards 1 and 10; we never ask for it
        rf"Using metastore snapshot: .*|{_T}Restoring offline from backup .*",
        "this is a legacy offline restore",
    ),
    *_EITHER,
)


def read_backup_line(text: str) -> LogLine:
    """Return what one line of `influxd backup` means, of either stream."""
    return _read(text, _BACKUP)[1]


def read_restore_line(text: str) -> LogLine:
    """Return what one line of `influxd restore` means, of either stream."""
    return _read(text, _RESTORE)[1]


def judge_backup(lines: Sequence[str], exit_code: int) -> BackupVerdict:
    """Return what the whole log proves; `lines` are both streams in any order."""
    read = [_read(line, _BACKUP) for line in lines]
    finished = _ids(read, _Kind.FINISHED)
    lost = sorted(_ids(read, _Kind.RETRY) - {0})  # 0 is the catalogue: just a server starting
    full = any(_NO_SPACE in line.text for _, line in read)
    problems = _Sentences()
    if full:
        problems.add("The disk for the dump is full. Free some space, then dump again.")
    elif broken := sorted({line.shard or 0 for _, line in read if line.retry_bytes}):
        problems.add(f"Connection lost inside {_shards(broken)}: damaged. {_AGAIN}")
    elif lost:  # 1.6.7, killed and restarted after 4 s: exit 0, shard before it cut
        problems.add(
            f"InfluxDB became unreachable at {_shards(lost)}; a shard may be cut. {_AGAIN}"
        )
    problems.add_all(_failures(read, exit_code))
    done = _has(read, _Kind.DONE)
    if not done:
        problems.add('The dump did not finish: no line "backup complete".')
    elif not _has(read, _Kind.PORTABLE):
        problems.add("This is not a portable dump of all databases. Dump with -portable alone.")
    elif missing := sorted(_ids(read, _Kind.BEGUN) - finished):
        problems.add(f"The file of {_shards(missing)} is missing. {_AGAIN}")
    if _has(read, _Kind.WINDOW):
        problems.add(
            "The dump covers only a window of time. Dump without -since, -start and -end."
        )
    return BackupVerdict(
        problems=problems.told,
        warnings=_warnings(read),
        # A crash was seen when the catalogue was cut on its way; other codes mean no server.
        again=not full and ((exit_code == 0 and (bool(lost) or not done)) or exit_code == _CRASH),
        shards=finished,
    )


def judge_restore(
    lines: Sequence[str], exit_code: int, expected: frozenset[int]
) -> RestoreVerdict:
    """Return what the whole log proves; `expected` is the newest manifest's ids, no _internal.

    A skipped shard is a problem if it was expected, else a warning: then only an older dump in
    the same folder lists it.
    """
    read = [_read(line, _RESTORE) for line in lines]
    skips = [line for kind, line in read if kind is _Kind.SKIPPED]
    restored = _ids(read, _Kind.LOADED)
    refused = _has(read, _Kind.REFUSED)
    problems, warnings = _Sentences(), _Sentences()
    problems.add_all(_failures(read, exit_code))
    skipped = []
    for database in sorted({line.database or "" for line in skips} - {INTERNAL}):
        ids = tuple(sorted(line.shard or 0 for line in skips if line.database == database))
        skipped.append(SkippedShards(database, ids))
        if wanted := sorted(expected.intersection(ids)):
            problems.add(
                f"In the dump but NOT restored: {_shards(wanted)} of database {database}, not "
                f"listed in the dump's catalogue (made while the dump ran?). Use another backup."
            )
        if older := sorted(set(ids) - expected):
            warnings.add(
                f"Not restored: {_shards(older)} of database {database}, which the newest dump "
                f"does not list. Two dumps share this folder."
            )
    unseen = sorted(expected - restored - _ids(read, _Kind.SKIPPED))
    if unseen and not refused:
        problems.add(f"Not restored: {_shards(unseen)}, of {len(expected)} expected.")
    # If the newest file is missing, influxd silently uses an older one of the same shard id.
    dumps = {(line.file or "").partition(".")[0] for kind, line in read if kind is _Kind.LOADED}
    if len(dumps) > 1:
        problems.add(f"Shards of different dumps were mixed: {', '.join(sorted(dumps))}.")
    if extra := sorted(restored - expected):
        warnings.add(f"Restored although not expected: {_shards(extra)}.")
    warnings.add_all(_warnings(read))
    return RestoreVerdict(
        problems=problems.told,
        warnings=warnings.told,
        restored=restored,
        skipped_internal=len({line.shard for line in skips if line.database == INTERNAL}),
        skipped=tuple(skipped),
        metadata_refused=refused,
    )


def say_internal_left_out(count: int) -> str:
    """Return the single line for users about all the skipped shards of _internal."""
    shards = "1 shard" if count == 1 else f"{count} shards"
    return f"InfluxDB's own statistics ({shards} of {INTERNAL}) left out on purpose"


def explain_metadata_refusal(
    catalogue: Catalogue | None,
    asked: Collection[str],
    on_server: Collection[str],
    *,
    new_name: str = "",
) -> RefusalCause:
    """Return why InfluxDB printed "DB metadata not changed": it has six reasons.

    `catalogue` is None if it cannot be decoded; `asked` names the databases to restore, empty for
    all; `on_server` are the present ones; `new_name` is the new name of a single requested
    database.
    """
    if catalogue is None:
        say = "The dump's catalogue (.meta) is damaged. Nothing was changed. Use another backup."
        return RefusalCause(Refusal.DAMAGED, say)
    wanted = set(asked) or set(catalogue.names)
    if absent := wanted - {each.name for each in catalogue.databases}:
        held = ", ".join(catalogue.names) or "none"
        say = f"Not in the dump: {_names(absent)} (case matters). It has: {held}."
        return RefusalCause(Refusal.NOT_IN_DUMP, say)
    targets = {new_name} if new_name else wanted
    there = targets & set(on_server)
    if there == targets and not any(
        place.database in wanted for place in catalogue.places.values()
    ):
        say = "The dump has no data to load, and all its databases are on the server: success."
        return RefusalCause(Refusal.NOTHING_TO_LOAD, say)
    if there:
        say = (
            f"Already on the server: {_names(there)}. InfluxDB then restores nothing, not even "
            "other databases. Drop them if you do not need them, or restore under another name."
        )
        return RefusalCause(Refusal.EXISTS, say)
    if catalogue.size_bytes > LARGEST_SEEN_FINE_BYTES:
        say = (
            f"The catalogue has {catalogue.size_bytes} bytes, perhaps too many for InfluxDB 1.5 "
            "and 1.6 (influxdb#9968). Restore with 1.8, or one database at a time."
        )
        return RefusalCause(Refusal.LARGE, say)
    say = "InfluxDB refused the catalogue for an unknown reason. See its log (docker logs)."
    return RefusalCause(Refusal.UNKNOWN, say)


_CRASH = 2  # what Go's runtime exits with
_ENDS: Final = (
    (_CRASH, "influxd crashed."),
    (124, "influxd was stopped by the time limit."),
    (130, "influxd was interrupted."),
    (137, "influxd was killed."),
    (143, "influxd received a stop signal."),
)
_ADVICE: Final = (
    ("connection refused", " Is InfluxDB running and ready?"),
    ("permission denied", " Check the owner and rights of the folder."),
    ("header tag", " What answers is not InfluxDB's backup service (port 8088)."),
)
_MOST_IDS = 8

_Read = tuple[_Kind, LogLine]


class _Sentences:
    """Sentences in order, without repetitions."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def add(self, sentence: str) -> None:
        self.add_all([sentence])

    def add_all(self, sentences: Iterable[str]) -> None:
        self._told.extend(each for each in dict.fromkeys(sentences) if each not in self._told)

    @property
    def told(self) -> tuple[str, ...]:
        return tuple(self._told)


def _read(text: str, rules: Iterable[_Rule]) -> _Read:
    line = text.rstrip("\r\n")
    for rule in rules:
        if found := re.fullmatch(rule.pattern, line):
            part = found.groupdict()
            shard, received = part.get("shard"), part.get("retry_bytes")
            hopeless = int(received or 0) > 0 or (rule.kind is _Kind.RETRY and _NO_SPACE in line)
            return rule.kind, LogLine(
                level=Level.ERROR if hopeless else rule.level,
                text=line,
                say=rule.say.format(**part),
                shard=int(shard) if shard else None,
                database=part.get("database") or None,
                file=part.get("file"),
                retry_bytes=int(received) if received else None,
            )
    return _Kind.OTHER, LogLine(Level.WARNING, line, f"InfluxDB says: {line}", known=False)


def _failures(read: Sequence[_Read], exit_code: int) -> Iterable[str]:
    """Return how it ended, and the errors of influxd; its last line if it gave no other error."""
    own = (_Kind.RETRY, _Kind.SKIPPED)  # the verdicts word these themselves
    errors = [
        (kind, line.say)
        for kind, line in read
        if line.level is Level.ERROR and line.say and kind not in own
    ]
    for code, say in _ENDS:
        if exit_code == code:
            yield say
    first_hand = [say for kind, say in errors if kind is not _Kind.LAST]
    for say in first_hand or [say for _, say in errors]:
        yield f"InfluxDB: {say}." + "".join(what for sign, what in _ADVICE if sign in say)
    if exit_code and not errors and exit_code not in dict(_ENDS):
        yield f"influxd ended with exit code {exit_code} and gave no reason."


def _warnings(read: Sequence[_Read]) -> tuple[str, ...]:
    told = _Sentences()
    told.add_all(line.say or line.text for _, line in read if line.level is Level.WARNING)
    return told.told


def _has(read: Sequence[_Read], kind: _Kind) -> bool:
    return any(each is kind for each, _ in read)


def _ids(read: Sequence[_Read], kind: _Kind) -> frozenset[int]:
    return frozenset(line.shard for each, line in read if each is kind and line.shard is not None)


def _shards(ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"shard {ids[0]}"
    shown = ", ".join(str(each) for each in ids[:_MOST_IDS])
    return f"{len(ids)} shards ({shown}{', …' if len(ids) > _MOST_IDS else ''})"


def _names(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
