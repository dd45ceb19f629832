"""One line for a monitor: is there a recent good backup in every location that should have one.

A warning if the newest good one lacks what an earlier one had, if a newer one of its machine is
incomplete, or if a restore did not end.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ...backups.holdings import Gone, Holdings, lacking_words, lacks, lacks_told
from ...backups.losses import way_out
from ...backups.names import LOCK
from ...backups.sets import BackupSet, State, runtags_in
from ...backups.verifications import HERE, failed_at
from ...core.dataclass import dataclass
from ...core.errors import IotstackError, StepFailed, UsageError
from ...core.nearest import did_you_mean
from ...core.stack_folders import RESTORE
from ...core.units import read_duration
from ...environment.environment import (
    Environment,
    Newest,
    newest_good,
    open_environment,
    sets_read,
)
from ...environment.stack_host import journal_paths
from ...hosts.base import Storage
from ...hosts.inspect import host_name
from ...hosts.local import holder_ended, within
from ...hosts.pasted import host_flag
from ...monitoring.troubles import PROBLEM, TroubleFile
from ...reporting.report import Report, age_text, one_line
from ...settings.model import Settings
from ..setup.installed import next_backup

EVERYWHERE = "all"
STATES = ("OK", "WARNING", "CRITICAL")
"""By the exit code, as monitors read it."""
SHOWN_ANYWAY = ("overdue ", "away ")
"""The beginnings of problems that this line has of its own."""
PLACE_LIMIT_S = 60.0
MANIFESTS_LIMIT_S = 30.0
"""The time limit for manifests of one location; older sets then do not count for what they had."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The state of one location: its newest good set, or why it is unknown."""

    place: str
    newest: Newest = field(default_factory=Newest)
    trouble: str = ""
    host: str = ""
    """The machine whose sets count; all, if empty."""
    lacks: str = ""
    """What its newest good set lacks that an earlier one had, or of a newer one that failed."""
    missing: tuple[tuple[Holdings, BackupSet], ...] = ()
    """What its newest good set lacks, and which has it."""
    begun: str = ""
    """The newer set that is unfinished, if a run may be working on it."""


def tell_status(
    settings: Settings,
    max_age: str,
    at: str,
    report: Report,
    name: str = "",
    *,
    as_json: bool = False,
) -> int:
    """Print one line if each location has a recent good backup; return 0.

    Returns 1, a warning to a monitor, if one lacks what an earlier one had, or a restore or the
    newest backup did not end.

    `name` is a host of the settings whose backups are checked; if it is empty, this machine.

    `at` is one location, here or a vault; if it is empty, all of them count. Raises StepFailed
    with the line if one has none, and UsageError. As JSON, the state of each location is with the
    line, also if one has none: then it returns 2.
    """
    limit = read_duration(max_age)
    with open_environment(settings, name) as environment:
        seen = _see(environment, at, name)
        kept = _kept(environment) if at in ("", HERE) else ""
        owed = _owed(environment, name) if at in ("", HERE) else ""
        astray = _astray(environment) if at in ("", HERE) else ""
        begins = _begins(environment) if at in ("", HERE) and not name else ""
    good, line = judge_status(seen, datetime.now(UTC), limit)
    having: dict[str, list[str]] = {}
    for each in seen:
        having.setdefault(each.lacks, []).append(each.place)
    lacks_of = [f"{', '.join(where)}: {told}" for told, where in having.items() if told]
    watched = _watched(settings) if not name and at in ("", HERE) else ()
    lacking = "; ".join(filter(None, (owed, *lacks_of, *watched)))
    cure = "" if name else _cure(seen)
    if not good:
        line = f"{line}{astray}"
        line = f"{line}; {lacking}{cure}" if lacking else line
        if not as_json:
            raise StepFailed(line)
        return _write_states(report, "CRITICAL", line, seen)
    line = "; ".join(filter(None, (line, *(each.begun for each in seen), kept, begins)))
    line, state = (f"{lacking}; {line}{cure}", "WARNING") if lacking else (line, "OK")
    if as_json:
        return _write_states(report, state, line, seen)
    report.write(f"{state} {line}")
    return STATES.index(state)


def _write_states(report: Report, state: str, line: str, seen: Iterable[Seen]) -> int:
    """Print the state of each location as JSON, and return the exit code of the state."""
    code = STATES.index(state)
    places = [_row(each) for each in seen]
    report.write_json({"state": state, "exit_code": code, "text": line, "places": places})
    return code


def _row(seen: Seen) -> Mapping[str, Any]:
    good, made = seen.newest.good, seen.newest.made
    return {
        "place": seen.place,
        "runtag": good.runtag if good else None,
        "made": made.isoformat() if made else None,
        "state": good.state.value if good else None,
        "lacks": seen.lacks or None,
        "trouble": seen.trouble or None,
    }


def _watched(settings: Settings) -> tuple[str, ...]:
    """Return the problems that the last look of `inv monitor` found, those shown here left out."""
    troubles = TroubleFile(settings.stack.folder).read()
    return tuple(
        one_line(each.text)
        for key, each in troubles.items()
        if key.startswith(PROBLEM) and not key.removeprefix(PROBLEM).startswith(SHOWN_ANYWAY)
    )


def _kept(environment: Environment) -> str:
    """Return what old states of restores take here; '' for nothing, or if unknown."""
    try:
        folder = environment.settings.stack.folder
        if not any(
            name.startswith("previous-")
            for name in environment.host.listdir(f"{folder}/{RESTORE}")
        ):
            return ""
        from ..undo.old_states import states_told

        return within(PLACE_LIMIT_S, HERE, lambda: states_told(environment.host, folder))
    except IotstackError:
        return ""


def _begins(environment: Environment) -> str:
    """Return when systemd starts the next backup; '' without such a schedule."""
    begins = next_backup(environment.host)
    return f"next backup {begins:%Y-%m-%d %H:%M}" if begins else ""


def _astray(environment: Environment) -> str:
    """Return, as the end of a line, that the stack's folder is missing; '' if it may exist."""
    folder = environment.settings.stack.folder
    try:
        found = within(PLACE_LIMIT_S, HERE, lambda: environment.host.stat([folder]))
    except IotstackError:
        return ""
    return "" if found else f"; no stack found in {folder} ([stack] folder in hosts.toml)"


def _owed(environment: Environment, name: str) -> str:
    """Return which restore or reload did not end, or why that is unknown; '' for none."""
    try:
        if not environment.host.stat(journal_paths(environment.settings.stack.folder)):
            return ""
        from ..shared.checks import unfinished
        from ..undo.interrupted import Owing  # imports the rules of a restore, rarely needed here

        owing = Owing.of_site(environment)
        lines = within(PLACE_LIMIT_S, HERE, owing.read)
        change = unfinished(lines)
        undo = f"inv undo{host_flag(name)}"
        if change and within(PLACE_LIMIT_S, HERE, lambda: owing.gone(lines)):
            return (
                f"{change} was interrupted, and some of the data it replaced are gone ({undo} "
                "--leave-gone)"
            )
    except IotstackError as error:
        return f"cannot tell whether a restore was interrupted: {one_line(str(error))}"
    return f"{change} is running or was interrupted ({undo})" if change else ""


def _cure(seen: Sequence[Seen]) -> str:
    """Return how the owner declares that missing data are gone for good, '' if none are."""
    lacking = {each.place: each.missing for each in seen if each.missing}
    if not lacking:
        return ""
    everywhere = tuple(pair for pairs in lacking.values() for pair in pairs)
    words = lacking_words(everywhere)
    if set(words) == set(lacking_words(lacking.get(HERE, ()))):
        return f". {way_out(words)}"
    return f". {way_out(words, EVERYWHERE if len(lacking) > 1 else next(iter(lacking)))}"


def _see(environment: Environment, at: str, name: str) -> list[Seen]:
    """Return the state of each location; the stack's own has the name of its host."""
    environment.knows(at)
    storages: dict[str, Storage] = {HERE: environment.host, **environment.vaults}
    if at and at not in storages:
        every = "; default: every place" if len(storages) > 1 else ""
        near = did_you_mean(at, storages)
        raise UsageError(f"--at {at}: use one of {', '.join(storages)}{every}.{near}")
    asked = {at: storages[at]} if at else storages
    # A vault may hold other machines' backups too; naming it means all of them.
    named = environment.far or not at or at == HERE
    host = host_name(environment.host) if named else ""
    now = datetime.now(UTC)
    checks = environment.checks.newest()
    if environment.far:  # its own sets are judged by its own record
        checks |= {key: each for key, each in environment.checks_here().items() if key[1] == HERE}
    folders = {HERE: environment.backups}
    gone = environment.gone(environment.owner.read())
    own, lock = _own(environment), f"{environment.backups}/{LOCK}"
    ended = not environment.far and holder_ended(lock)
    seen = (
        _look(
            at, storage, folders.get(at, storage.root), now, host, failed_at(checks, at), gone, own
        )
        for at, storage in asked.items()
    )
    found = [replace(each, lacks=each.lacks + _uncovered(each, environment)) for each in seen]
    # A run that began meanwhile holds the lock now, or has finished its set.
    ended = ended and holder_ended(lock)
    found = [_with_unfinished(e, name, ended=ended) if e.place == HERE else e for e in found]
    if name:
        found = [replace(e, place=name, host="") if e.place == HERE else e for e in found]
    cure = "" if name else ": inv sync"
    return [_compared(each, found[0], cure, ended=ended) for each in found]


def _with_unfinished(seen: Seen, name: str, *, ended: bool) -> Seen:
    """Return the state here, with the newest unfinished set that is newer than the good one.

    A warning if its run has `ended`; one that may be running is only mentioned.
    """
    newer = (each.runtag for _, each in seen.newest.newer if each.state is State.UNFINISHED)
    runtag = next(newer, "")
    if not runtag:
        return seen
    which = f"{runtag}, which is newer, is" if seen.newest.good else f"{runtag} is"
    run = "its run was interrupted" if ended else "its run is active or was interrupted"
    cure = f"inv backup{host_flag(name)} --runtag {shlex.quote(runtag)} finishes it"
    told = f"{which} unfinished: {run} ({cure})"
    if not ended:
        return replace(seen, begun=told)
    return replace(seen, lacks=f"{told}; {seen.lacks}" if seen.lacks else told)


def _look(
    name: str,
    storage: Storage,
    folder: str,
    now: datetime,
    host: str,
    failed: Mapping[str, str],
    gone: tuple[Gone, ...],
    own: frozenset[str],
) -> Seen:
    def ask() -> Seen:
        newest = newest_good(storage, folder, now, host=host, failed=failed)
        sets = sets_read(storage, folder, MANIFESTS_LIMIT_S, failed)
        here = name == HERE
        # A set without readable manifest is identified by its name alone: it is here.
        mine = [
            each
            for each in sets
            if host in ("", each.manifest.host if each.manifest else "")
            or (each.manifest is None and (here or each.runtag in own))
        ]
        missing = lacks(newest.good, sets, gone, here=here) if newest.good else ()
        told = "; ".join((*_newer(mine, newest.good, here=here), *_lacks(newest.good, missing)))
        return Seen(name, newest, host=host, lacks=one_line(told), missing=missing)

    try:
        return within(PLACE_LIMIT_S, name, ask)
    except IotstackError as error:
        return Seen(name, trouble=one_line(str(error)))


def _own(environment: Environment) -> frozenset[str]:
    """Return the runtags of the sets beside the stack; none if it does not answer."""
    try:
        return within(
            PLACE_LIMIT_S, HERE, lambda: runtags_in(environment.host.listdir(environment.backups))
        )
    except IotstackError:
        return frozenset()


def _newer(sets: Sequence[BackupSet], good: BackupSet | None, *, here: bool) -> Iterator[str]:
    """Yield the problems of sets that are newer than the newest good one of a location."""
    made = good.made() if good else None
    host = good.manifest.host if good and good.manifest else ""
    for each in sets:
        then = each.made() if each.manifest else _written(each)
        if then is None or (made and then <= made):
            continue
        if host and each.manifest and each.manifest.host != host:
            continue
        which = each.runtag if here or not good else f"its copy of {each.runtag}"
        newer = f"{which}, which is newer, is" if good else f"{which} is"
        if each.state is State.DAMAGED:
            yield f"{newer} damaged (inv show '{each.runtag}')"
        elif each.state is State.INCOMPLETE and each.manifest:
            what = ", ".join(what for what, _ in each.manifest.lacking)
            yield f"{newer} incomplete: no {what}"


def _written(backup: BackupSet) -> datetime | None:
    """Return the date of the file of a manifest that cannot be read."""
    fact = backup.files.get("manifest")
    return datetime.fromtimestamp(fact.modified_s, UTC) if fact else None


def _lacks(
    good: BackupSet | None, missing: tuple[tuple[Holdings, BackupSet], ...]
) -> Iterator[str]:
    """Yield what the newest good set of a location lacks."""
    if good is None or good.manifest is None:
        return
    if missing:
        yield f"{good.runtag} is missing {lacks_told(missing)}"


def _compared(seen: Seen, first: Seen, cure: str, *, ended: bool) -> Seen:
    """Return the state of a location, and whether its newest good set differs from the first's.

    For example if a set was made again and not copied, or a copy was changed. `ended`: no run may
    be copying it now; else a set that is not there yet is no trouble.
    """
    one, other = seen.newest.good, first.newest.good
    where = "here" if first.place == HERE else f"in {first.place}"
    if not (one and other) or one.manifest == other.manifest:
        return seen
    if one.runtag == other.runtag:
        told = f"{one.runtag} is not the same backup as the one {where}"
    elif ended and _made(first) > _made(seen):
        told = f"{other.runtag}, which is {where}, is not completely there{cure}"
    else:
        return seen
    return replace(seen, lacks=f"{seen.lacks}; {told}" if seen.lacks else told)


def _made(seen: Seen) -> tuple[str, str]:
    """Return what orders the newest good sets of locations by age."""
    good = seen.newest.good
    return (good.manifest.started_utc, good.runtag) if good and good.manifest else ("", "")


def _uncovered(seen: Seen, environment: Environment) -> str:
    """Return which data in the newest good set of a location are not good, and how to show them.

    What it does not cover, and databases in it that are damaged or torn. Commands here show
    nothing beside the stack of another machine.
    """
    good = seen.newest.good
    if not good or not good.manifest:
        return ""
    counts = (
        (len(good.manifest.uncovered), "thing", "not covered"),
        (len(good.manifest.damaged), "database", "damaged before it was copied"),
        (len(good.manifest.torn), "database", "that may be inconsistent"),
    )
    told = [f"{n} {what}{'' if n == 1 else 's'} {how}" for n, what, how in counts if n]
    if not told:
        return ""
    by_host = any(each.by_host for each in environment.settings.vaults if each.name == seen.place)
    far = f"{seen.place}/{host_name(environment.host)}" if by_host else seen.place
    at = (
        f" --at {far if environment.far else seen.place}"
        if environment.far or "/" in seen.place
        else ""
    )
    how = "" if environment.far and seen.place == HERE else f" (inv show '{good.runtag}'{at})"
    things = f"{', '.join(told)}{how}"
    return f"; {things}" if seen.lacks else things


def judge_status(seen: Sequence[Seen], now: datetime, limit: timedelta) -> tuple[bool, str]:
    """Return whether each location has a good backup younger than the limit, and its line."""
    bad = [each for each in seen if each.newest.made is None or now - each.newest.made > limit]
    ahead = [
        f"{runtag} {'here' if each.place == HERE else f'in {each.place}'}"
        for each in seen
        for runtag in each.newest.ahead
    ]
    note = f"; dated in the future, so not counted: {', '.join(ahead)}" if ahead else ""
    if bad:
        return False, _alarm(bad, [each for each in seen if each not in bad], now, limit) + note
    first, *vaults = seen
    line = (f"{first.place}: " if first.place != HERE else "") + _told(first, now)
    if vaults:
        line += f"; vaults: {', '.join(_copy(each, first, now) for each in vaults)}"
    return True, line + note


def _alarm(bad: Sequence[Seen], good: Sequence[Seen], now: datetime, limit: timedelta) -> str:
    """Return which locations lack a recent good backup or cannot be read, and what others have."""
    none = f"no good backup within {_limit_text(limit)}"
    if not good and not any(each.trouble for each in bad):
        return f"{none}: {'; '.join(f'{each.place}: {_told(each, now)}' for each in bad)}"
    clauses = [
        f"{each.place}: no recent good backup can be seen there: {each.trouble.rstrip('.')}"
        if each.trouble
        else f"{each.place}: {none}: {_told(each, now)}"
        for each in bad
    ]
    clauses += [f"{each.place}: {_told(each, now)}" for each in good]
    return "; ".join(clauses)


def _limit_text(limit: timedelta) -> str:
    seconds = limit.total_seconds()
    return f"{seconds / 60:g} min" if seconds % 1800 else f"{seconds / 3600:g} h"


def _told(each: Seen, now: datetime) -> str:
    """Return the newest good set of a location with its age: its clock may be ahead."""
    good, made = each.newest.good, each.newest.made
    if good is None or made is None:
        return f"none of {each.host}" if each.host and each.place != HERE else "none"
    age = age_text(min(made, now), now)
    told = f"is {age} old" if age != "just now" else "was made just now"
    return f"{good.runtag} {told}, {good.state.value}"


def _copy(each: Seen, first: Seen, now: datetime) -> str:
    good, original = each.newest.good, first.newest.good
    if good and original and good.runtag == original.runtag:
        return f"{each.place} {good.state.value}"
    return f"{each.place} {_told(each, now)}"
