"""The backups here and in the vaults. Imports no rules, for speed."""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime

from ...backups.holdings import lacks, lacks_told
from ...backups.manifest import OUTSIDE, PIN_ENDING, read_utc
from ...backups.sets import GOOD, BackupSet, State, newest_first
from ...backups.verifications import HERE, Verification, failed_at, in_places
from ...core.dataclass import dataclass
from ...core.errors import ExitCode, StepFailed
from ...environment.environment import Environment
from ...hosts.base import Storage
from ...reporting.report import Report, age_text, one_line, size_text
from ...settings.model import Settings
from ...vaults.access import other_hosts
from ..shared.vault_sets import is_of_set, sets_there, state_of_copy


@dataclass(frozen=True, slots=True)
class ListRow:
    """One runtag of one machine with its sets, here and in the vaults."""

    runtag: str
    here: BackupSet | None
    vaults: Mapping[str, BackupSet]
    """By the vault's name, or its address for another machine: `nas/other-pi`."""
    checks: Mapping[str, Verification]
    """The latest verification in each location."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """The note of each pin by its location."""
    owner: str = ""
    """Its folder in vaults with one for each machine, if it is not ours."""

    @property
    def host(self) -> str:
        """Its machine: by the name of such a folder, or by the first manifest that was read."""
        there = (each.manifest for each in (self.here, *self.vaults.values()) if each)
        return self.owner or next((each.host for each in there if each), "")

    @property
    def best(self) -> BackupSet:
        """The set with the most information: the one here, or else a vault's."""
        return self.here or next(iter(self.vaults.values()))

    def state_in(self, vault: str) -> str:
        """Return the state of the copy in a vault, by its manifest or the same one here."""
        copy = self.vaults.get(vault) or self.vaults.get(f"{vault}/{self.owner}")
        return state_of_copy(self.here, copy) if copy else ""

    @property
    def is_damaged(self) -> bool:
        """Whether it is damaged here or in a vault."""
        there = [each for each in (self.here, *self.vaults.values()) if each]
        return any(each.state is State.DAMAGED for each in there)

    @property
    def pinned(self) -> bool:
        """Whether it is never removed, in at least one location."""
        return bool(self.pins)

    def verified(self, now: datetime) -> str:
        """Return since when every copy is verified, for people, or else where one is, and when.

        The latest that found damage comes first. For a set in one location, without the location.
        """
        newest = sorted(self.checks.values(), key=lambda each: (not each.good, each.utc))
        there = {*self.vaults, *([HERE] if self.here else [])}
        if not newest:
            return check_text(None, now, short=True)
        if newest[-1].good and there <= self.checks.keys():
            return check_text(newest[0], now, short=True)
        text = check_text(newest[-1], now, short=True)
        return text if there == {newest[-1].at} else f"{text} {in_places(newest[-1].at)}"


def gather_rows(environment: Environment) -> tuple[tuple[ListRow, ...], Mapping[str, str]]:
    """Return all backups, newest first, and messages on each vault that did not answer."""
    checks = environment.checks.newest()
    checked: dict[str, dict[str, Verification]] = {}
    for each_check in checks.values():
        checked.setdefault(each_check.runtag, {})[each_check.at] = each_check
    here = {each.runtag: each for each in environment.sets(checks, outline=True)}
    pins: dict[tuple[str, str], dict[str, str]] = {}
    _add_pins(pins, "", HERE, environment.host, environment.backups, here.values())
    notes = {}
    vaults: dict[tuple[str, str], dict[str, BackupSet]] = {}
    for name, storage in _places(environment):
        owner = name.partition("/")[2]
        ours = {} if owner else here
        try:
            names = storage.listdir(storage.root)
            found = sets_there(storage, names, ours, failed_at(checks, name), outline=True)
            _add_pins(pins, owner, name, storage, storage.root, found)
        except StepFailed as error:
            notes[name] = f"Cannot list {name}: {error}"
            continue
        for each in found:
            vaults.setdefault((each.runtag, owner), {})[name] = each
    rows = []
    for tag, owner in {*((tag, "") for tag in here), *vaults}:
        there = vaults.get((tag, owner), {})
        own = here.get(tag) if not owner else None
        valid = {
            at: check
            for at, check in checked.get(tag, {}).items()
            if (at in there or (own and (at == HERE or (at in notes and own.manifest))))
            and is_of_set(_told(at, there, own), check.made)
        }
        rows.append(ListRow(tag, own, there, valid, pins.get((tag, owner), {}), owner))
    return newest_first(sorted(rows, key=lambda e: e.owner), lambda row: row.best), notes


def _places(environment: Environment) -> Iterator[tuple[str, Storage]]:
    """Yield each vault, and the sets of other machines in one with a folder for each machine."""
    by_host = {each.name: each for each in environment.settings.vaults if each.by_host}
    for name, storage in tuple(environment.vaults.items()):
        if "/" in name:  # a requested one; its vault lists it
            continue
        yield name, storage
        try:
            others = other_hosts(by_host[name]) if name in by_host else ()
        except StepFailed:  # the listing of our own folder reports it
            continue
        for address in others:
            if environment.knows(address):
                yield address, environment.vaults[address]


def _add_pins(
    pins: dict[tuple[str, str], dict[str, str]],
    owner: str,
    at: str,
    storage: Storage,
    folder: str,
    sets: Iterable[BackupSet],
) -> None:
    """Add the notes of the pins in one location, by runtag and owner, and by location."""
    names = {each.runtag: f"{each.runtag}.{PIN_ENDING}" for each in sets if each.pinned}
    told = storage.read_many(folder, names.values()) if names else {}
    for runtag, name in names.items():
        note = told.get(name, b"").decode("utf-8", "replace")
        pins.setdefault((runtag, owner), {})[at] = one_line(note)


def _told(at: str, there: Mapping[str, BackupSet], own: BackupSet | None) -> BackupSet | None:
    """Return the set of a location, or the one here if it has the same manifest."""
    copy = there.get(at)
    return copy if copy and copy.manifest else own


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the cyclic garbage collector: there are no cycles, and 10,000 sets took 0.6 s."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


@_without_collector()
def list_backups(settings: Settings, report: Report, *, as_json: bool) -> int:
    """Print the backups, `as_json` for programs, and return the exit code.

    1 if a vault could not be listed, or else 3 if a set is damaged, here or in a vault.
    """
    environment = Environment.of(settings)
    try:
        rows, notes = gather_rows(environment)
        gone = environment.gone(environment.owner.read())
    finally:
        environment.close()
    for note in notes.values():
        report.warn(note)
    now = datetime.now(UTC)
    damaged = any(row.is_damaged for row in rows)
    code = ExitCode.WARNINGS if damaged else ExitCode.GOOD
    code = ExitCode.FAILED if notes else code
    if as_json:
        report.write_json([_plain(row, now) for row in rows])
        return code
    if not rows:
        report.write(f"No backups found in {environment.backups}. {_way_on(environment)}")
        return code
    names = tuple(name for name in environment.vaults if "/" not in name)
    _tell_rows(rows, names, notes, now, report)
    here = [row.here for row in rows if row.here]
    newest = next((each for each in here if each.state in GOOD), None)
    found = lacks(newest, here, gone, here=True) if newest else ()
    # The list knows nothing of databases and of the outside part; `status` does.
    known = tuple((missing - {(OUTSIDE,)}, each) for missing, each in found)
    lacking = lacks_told(each for each in known if each[0])
    if newest and lacking:
        report.warn(f"{newest.runtag} is missing {lacking}. For details: inv status")
    return code


def _tell_rows(
    rows: Sequence[ListRow],
    names: Sequence[str],
    away: Container[str],
    now: datetime,
    report: Report,
) -> None:
    """Print a row for each backup; `names`: the vaults, `away`: those that were not listed.

    If a terminal is too narrow for the parts, they are printed once, below; if it is too narrow
    for a column of each vault as well, a line below each row lists its locations.
    """
    several = len({row.host for row in rows if row.host}) > 1
    begin: list[_Column] = [
        ("runtag", [row.runtag for row in rows]),
        ("age", [age_text(row.best.made(), now, short=True) for row in rows]),
        *([("host", [row.host for row in rows])] if several else ()),
        ("size", [size_text(row.best.size_bytes) for row in rows]),
    ]
    parts: _Column = ("parts", [" ".join(row.best.parts) for row in rows])
    places: list[_Column] = [
        (HERE, [row.here.state.value if row.here else "" for row in rows]),
        *((e, ["?" if e in away else row.state_in(e) for row in rows]) for e in names),
    ]
    end: list[_Column] = [("verified", [row.verified(now) for row in rows])]
    if any(row.pinned for row in rows):
        end.append(("pinned", ["pinned" if row.pinned else "" for row in rows]))
    usual = Counter(parts[1]).most_common(1)[0][0]
    other = [f"parts: {each}" if each and each != usual else "" for each in parts[1]]
    columns, below = [*begin, parts, *places, *end], []
    if not report.has_room(_lines(columns)):
        columns, below = [*begin, *places, *end], other
        if not report.has_room(_lines(columns), folded=True):
            columns = [*begin, *end]
            there = [_where(places, number) for number in range(len(rows))]
            below = ["; ".join(filter(None, pair)) for pair in zip(there, other, strict=True)]
    titles, *lines = _lines(columns)
    report.table(titles, lines, right=(titles.index("size"),), below=below)
    if below:
        report.write(f"Parts of {'all others' if any(other) else 'each'}: {usual}")


_Column = tuple[str, Sequence[str]]
"""A title and the cells below it."""


def _lines(columns: Iterable[_Column]) -> list[tuple[str, ...]]:
    """Return a table's lines, the titles first."""
    return list(zip(*((title, *cells) for title, cells in columns), strict=True))


def _where(places: Iterable[_Column], number: int) -> str:
    """Return the locations of a backup, with states: `here, nas: complete; usb: damaged`."""
    by_state: dict[str, list[str]] = {}
    for place, states in places:
        by_state.setdefault(states[number], []).append(place)
    return "; ".join(f"{', '.join(at)}: {state}" for state, at in by_state.items() if state)


def _way_on(environment: Environment) -> str:
    """Return what helps if there is no backup: a bare machine has nothing to save yet."""
    from ...stack.compose import COMPOSE_FILES  # only here, for speed

    if environment.far or any(
        os.path.isfile(f"{environment.settings.stack.folder}/{e}") for e in COMPOSE_FILES
    ):
        return "To make one: inv backup"
    vaults = ", ".join(environment.vaults)
    asked = f"Backups in the vaults ({vaults}) would be listed here as well. " if vaults else ""
    return (
        f"There is also no stack in {environment.settings.stack.folder}. {asked}To restore one: "
        "inv restore --runtag latest --from FOLDER (the folder with its backups, or a vault in "
        "hosts.toml)."
    )


def check_text(check: Verification | None, now: datetime, *, short: bool = False) -> str:
    """Return when a set was last verified, for people: `2 days`, `2 days: damaged`; or `2 d`."""
    if check is None:
        return "never"
    age = age_text(read_utc(check.utc), now, short=short)
    if check.verdict != "good":
        return f"{age}: {check.verdict}"
    return f"{age}, by rehearsal" if check.how == "restore" else age


def _plain(row: ListRow, now: datetime) -> dict[str, object]:
    made = row.best.made()
    manifest = row.best.manifest
    return {
        "runtag": row.runtag,
        "made": made.isoformat() if made else None,
        "age_seconds": round((now - made).total_seconds()) if made else None,
        "host": row.host or None,
        "size_bytes": row.best.size_bytes,
        "parts": list(row.best.parts),
        "here": row.here.state.value if row.here else None,
        "vaults": {name: row.state_in(name) for name in row.vaults},
        "warnings": list(manifest.warnings) if manifest else [],
        "pinned": row.pinned,
        "pins": row.pins,
        "verified": {at: plain_check(each) for at, each in row.checks.items()},
    }


def plain_check(check: Verification) -> dict[str, object]:
    """Return a verification for programs."""
    names = ("utc", "how", "good", "verdict", "problems")
    return {name: getattr(check, name) for name in names}
