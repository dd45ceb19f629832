"""Gathers what Home Assistant, metrics and warnings say of this machine's stack."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import unquote

from ...backups.manifest import read_utc
from ...backups.sets import GOOD, by_runtag
from ...backups.verifications import HERE, Checks, failed_at
from ...core.errors import StepFailed
from ...environment.environment import Environment, newest_good
from ...environment.stack_host import machine_mark
from ...hosts.base import Storage
from ...hosts.inspect import host_name
from ...hosts.local import run_parallel
from ...monitoring.anomalies import problems_in
from ...monitoring.place_history import PlaceFile, PlaceHistory
from ...monitoring.run_event import RunEvent
from ...monitoring.run_records import RunRecords
from ...monitoring.stack_facts import PlaceFacts, SetFacts, StackFacts
from ...reporting.report import one_line
from ..setup.installed import looks_hourly, next_backup

PLACE_LIMIT_S = 60.0
MOST_SETS = 60
"""So many sets are looked at, the newest: two months of one each day."""
OF_REHEARSALS = frozenset({"restore", "unpack"})
"""How a rehearsal verifies a set."""


def observe(environment: Environment, limit: timedelta, *, look_at_vaults: bool) -> StackFacts:
    """Return what is known of the stack, with its problems.

    `limit`: how old the newest good backup may be.
    """
    facts, histories = gather(environment, look_at_vaults=look_at_vaults)
    samples = {name: each.samples for name, each in histories.items()}
    return replace(facts, problems=tuple(problems_in(facts, samples, limit)))


def gather(
    environment: Environment, *, look_at_vaults: bool
) -> tuple[StackFacts, Mapping[str, PlaceHistory]]:
    """Return what is known of the stack, without problems, and the history of each place.

    Without a look at the vaults, they are as the last look found them; only one that was never
    looked at is looked at now. What a look finds is written for the next time, if the disk has
    space.
    """
    now = datetime.now(UTC)
    host = host_name(environment.host)
    checks = environment.checks.newest()
    file = PlaceFile(environment.settings.stack.folder)
    known = file.read()
    asked: dict[str, Storage] = {HERE: environment.host}
    asked |= {
        name: storage
        for name, storage in environment.vaults.items()
        if look_at_vaults or name not in known
    }
    looks = {
        name: partial(_look, name, storage, _folder(environment, name), now, host, checks)
        for name, storage in asked.items()
    }
    found = {
        name: seen
        if isinstance(seen, PlaceFacts)
        else PlaceFacts(name, trouble=one_line(str(seen)))
        for name, seen in run_parallel(looks, PLACE_LIMIT_S).items()
    }
    histories = {}
    for name in (HERE, *environment.vaults):
        earlier = known.get(name, PlaceHistory(PlaceFacts(name)))
        histories[name] = earlier.seen(found[name], now) if name in found else earlier
    with contextlib.suppress(StepFailed):  # a full disk: the next look is compared with less
        file.write(histories.values())
    facts = StackFacts(
        host,
        now,
        _sets(environment, checks),
        tuple(each.place for each in histories.values()),
        _runs(environment),
        _newest_check(checks, rehearsed=True),
        next_backup(environment.host),
        is_hourly=bool(environment.settings.monitoring.mqtt) and looks_hourly(environment.host),
        machine=machine_mark(environment.host),
    )
    return facts, histories


def _folder(environment: Environment, name: str) -> str:
    return environment.backups if name == HERE else environment.vaults[name].root


def _look(
    name: str, storage: Storage, folder: str, now: datetime, host: str, checks: Checks
) -> PlaceFacts:
    """Return what is in one place; raises StepFailed."""
    names = storage.listdir(folder)
    sets, failed = by_runtag(names), failed_at(checks, name)
    newest = newest_good(storage, folder, now, host=host, failed=failed, names=names)
    return PlaceFacts(
        name,
        newest.made,
        len(sets),
        sum(fact.size_bytes for files in sets.values() for fact in files.values()),
        storage.free_bytes(folder),
        _newest_check({key: each for key, each in checks.items() if key[1] == name}),
    )


def _newest_check(checks: Checks, *, rehearsed: bool = False) -> datetime | None:
    """Return when a set was last found good, of any way or by a rehearsal; None for never."""
    good = [
        each.utc
        for each in checks.values()
        if each.good and (not rehearsed or each.how in OF_REHEARSALS)
    ]
    return read_utc(max(good)) if good else None


def _sets(environment: Environment, checks: Checks) -> tuple[SetFacts, ...]:
    try:
        newest = environment.sets(checks, outline=True)[:MOST_SETS]
    except StepFailed:  # the look at the place tells why
        return ()
    found = []
    for each in reversed(newest):
        manifest = each.manifest
        if manifest and each.state in GOOD:
            began = read_utc(manifest.started_utc)
            seconds = (read_utc(manifest.finished_utc) - began).total_seconds()
            parts = {part.kind: part.size_bytes for part in manifest.made}
            found.append(SetFacts(each.runtag, began, seconds, parts))
    return tuple(sorted(found, key=lambda each: each.began))


def _runs(environment: Environment) -> dict[str, RunEvent]:
    """Return the last run of each task on this machine that ended.

    One for a host that hosts.toml does not have, such as a misspelt one, would be there for ever.
    """
    records = RunRecords(environment.settings.stack.folder)
    hosts = {"", *(each.name for each in environment.settings.machines)}
    return {
        key: each.event
        for key, each in records.all()
        if each.code is not None and unquote(key.partition("@")[2]) in hosts
    }
