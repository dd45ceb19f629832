"""The backups here and in the vaults. Imports no rulebook, for its speed."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..checks import HERE, Check, failed_at
from ..errors import ExitCode, StepFailed
from ..manifest import PIN_ENDING, read_utc
from ..report import Report, age_text, one_line, size_text
from ..rules import KINDS
from ..sets import BackupSet, State, files_of, gather_sets
from ..settings import Settings
from ..site import Site, manifests_in
from ..steps import Place

MANIFESTS_LIMIT_S = 10.0
"""How long the manifests of one vault may take; each set whose time does not come is unread."""
UNREAD = "unread"
ANOTHER = "another"
"""The vault has another backup of that name than this machine."""
DATES_APART_S = 2.0
"""A FAT file system tells even seconds only."""


@dataclass(frozen=True, slots=True)
class Row:
    """One runtag with what there is of it, here and in the vaults."""

    runtag: str
    here: BackupSet | None
    vaults: Mapping[str, BackupSet]
    checks: Mapping[str, Check]
    """The newest verification in each place."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """The note of each pin by its place."""

    @property
    def best(self) -> BackupSet:
        """The set that tells most of it: the one here, or else a vault's."""
        return self.here or next(iter(self.vaults.values()))

    def state_in(self, vault: str) -> str:
        """Return the state of the copy in a vault, by its manifest or the same one here."""
        copy = self.vaults.get(vault)
        if copy is None:
            return ""
        if copy.state is State.DAMAGED:
            return State.DAMAGED.value
        manifest = self.here.manifest if self.here else None
        if copy.manifest:
            return ANOTHER if manifest and manifest != copy.manifest else str(copy.state.value)
        if manifest is None:
            return UNREAD if "manifest" in copy.files else str(copy.state.value)
        whole = "manifest" in copy.files and all(
            part.kind in copy.files and copy.files[part.kind].size_bytes == part.size_bytes
            for part in manifest.made
        )
        return manifest.state if whole else State.UNFINISHED.value

    @property
    def pinned(self) -> bool:
        """Whether it is never removed, in one place at least."""
        return bool(self.pins)

    @property
    def last_check(self) -> Check | None:
        """The newest verification, wherever it was."""
        return max(self.checks.values(), key=lambda each: each.utc, default=None)


def gather_rows(site: Site) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return all backups, newest first, and which vaults did not answer."""
    checks = site.checks.newest()
    checked: dict[str, dict[str, Check]] = {}
    for each_check in checks.values():
        checked.setdefault(each_check.runtag, {})[each_check.at] = each_check
    here = {each.runtag: each for each in site.sets(checks)}
    pins: dict[str, dict[str, str]] = {}
    _add_pins(pins, HERE, site.host, site.backups, here.values())
    notes = []
    vaults: dict[str, dict[str, BackupSet]] = {}
    for name, place in site.vaults.items():
        try:
            failed = {
                tag: made
                for tag, made in failed_at(checks, name).items()
                if _is_of(here.get(tag), made)
            }
            found = _sets_there(place, here, failed)
            _add_pins(pins, name, place, place.root, found)
        except StepFailed as error:
            notes.append(f"{name} is not listed: {error}")
            continue
        for each in found:
            vaults.setdefault(each.runtag, {})[name] = each
    rows = []
    for tag in {*here, *vaults}:
        there = vaults.get(tag, {})
        valid = {
            at: check
            for at, check in checked.get(tag, {}).items()
            if (at in there or (at == HERE and tag in here)) and _is_of(here.get(tag), check.made)
        }
        rows.append(Row(tag, here.get(tag), there, valid, pins.get(tag, {})))
    return tuple(sorted(rows, key=_newest_first)), tuple(notes)


def _add_pins(
    pins: dict[str, dict[str, str]],
    at: str,
    place: Place,
    folder: str,
    sets: Iterable[BackupSet],
) -> None:
    """Add the notes of the pins in one place, by runtag and place."""
    names = {each.runtag: f"{each.runtag}.{PIN_ENDING}" for each in sets if each.pinned}
    told = place.contents(folder, names.values()) if names else {}
    for runtag, name in names.items():
        note = told.get(name, b"").decode("utf-8", "replace")
        pins.setdefault(runtag, {})[at] = one_line(note)


def _sets_there(
    place: Place, here: Mapping[str, BackupSet], failed: Mapping[str, str]
) -> list[BackupSet]:
    """Return the sets in a vault; a manifest that is the same here is not opened there."""
    names = place.names(place.root)
    sets = {each.runtag: each for each in gather_sets(names, None, failed)}
    other = {
        f"{tag}.{KINDS['manifest']}": each.files["manifest"]
        for tag, each in sets.items()
        if "manifest" in each.files and not _same_manifest(here.get(tag), each)
    }
    manifests = manifests_in(place, place.root, other, MANIFESTS_LIMIT_S)
    if manifests:
        read = {tag: manifest for tag, manifest in manifests.items() if manifest}
        mine = {name: names[name] for tag in manifests for name in files_of(tag) if name in names}
        sets |= {each.runtag: each for each in gather_sets(mine, read, failed)}
    return list(sets.values())


def _same_manifest(here: BackupSet | None, there: BackupSet) -> bool:
    """Tell whether two sets have one manifest, by the size and the date of its file."""
    if here is None or here.manifest is None:
        return False
    ours, theirs = here.files["manifest"], there.files["manifest"]
    apart_s = abs(ours.modified_s - theirs.modified_s)
    return ours.size_bytes == theirs.size_bytes and apart_s <= DATES_APART_S


def _is_of(backup: BackupSet | None, made: str) -> bool:
    """Tell whether a verification speaks of this set, and not of one of its name before."""
    return not (backup and backup.manifest) or backup.manifest.finished_utc == made


def _newest_first(row: Row) -> tuple[float, str]:
    made = row.best.made()
    return (-made.timestamp() if made else float("inf"), row.runtag)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the search for circles: there are none here, and with 10,000 sets it took 0.6 s."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


@_without_collector()
def list_backups(settings: Settings, report: Report, *, as_json: bool) -> int:
    """Print the backups, `as_json` for programs; return 1 where a vault could not be listed."""
    site = Site.of(settings)
    try:
        rows, notes = gather_rows(site)
    finally:
        site.close()
    for note in notes:
        report.warn(note)
    now = datetime.now(UTC)
    code = ExitCode.FAILED if notes else ExitCode.GOOD
    if as_json:
        report.write_json([_plain(row, now) for row in rows])
        return code
    if not rows:
        report.write(f"There are no backups in {site.backups}. Make one: inv backup")
        return code
    names = tuple(site.vaults)
    report.table(
        ("runtag", "age", "host", "size", "parts", "here", *names, "verified", "pinned"),
        [
            (
                row.runtag,
                age_text(row.best.made(), now),
                row.best.manifest.host if row.best.manifest else "",
                size_text(row.best.size_bytes),
                " ".join(row.best.parts),
                row.here.state.value if row.here else "",
                *(row.state_in(name) for name in names),
                check_text(row.last_check, now),
                "pinned" if row.pinned else "",
            )
            for row in rows
        ],
        right=(3,),
    )
    return code


def check_text(check: Check | None, now: datetime) -> str:
    """Return when a set was verified last, for people: `2 days`, `2 days: damaged`."""
    if check is None:
        return "never"
    age = age_text(read_utc(check.utc), now)
    if check.verdict != "good":
        return f"{age}: {check.verdict}"
    return f"{age}, by restore" if check.how == "restore" else age


def _plain(row: Row, now: datetime) -> dict[str, object]:
    made = row.best.made()
    manifest = row.best.manifest
    return {
        "runtag": row.runtag,
        "made": made.isoformat() if made else None,
        "age_seconds": round((now - made).total_seconds()) if made else None,
        "host": manifest.host if manifest else None,
        "size_bytes": row.best.size_bytes,
        "parts": list(row.best.parts),
        "here": row.here.state.value if row.here else None,
        "vaults": {name: row.state_in(name) for name in row.vaults},
        "warnings": list(manifest.warnings) if manifest else [],
        "pinned": row.pinned,
        "pins": row.pins,
        "verified": {at: plain_check(each) for at, each in row.checks.items()},
    }


def plain_check(check: Check) -> dict[str, object]:
    """Return a verification as programs read it."""
    names = ("utc", "how", "good", "verdict", "problems")
    return {name: getattr(check, name) for name in names}
