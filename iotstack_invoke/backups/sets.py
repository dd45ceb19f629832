"""The sets in a listing of names, each with its state. Pure: it reads no disk.

A name that no run could have written belongs to no set and is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from ..core.dataclass import dataclass
from ..core.runtag import is_runtag, runtag_time
from ..hosts.base import PARTIAL, FileFact
from .manifest import MOST_BYTES, PIN_ENDING, RECORDS_ENDING, REMOVING_ENDING, Manifest, read_utc
from .names import KINDS, PARTS, TEXTS, split_set_name

_LOG_OF_CHANGE = re.compile(r"(\.restore|^reload-influxdb)-\d{8}T\d{6}Z\.log$")
"""The log of a restore or reload: neither part of a set nor an unknown file."""

MARKS = (RECORDS_ENDING, REMOVING_ENDING, PIN_ENDING)

Item = TypeVar("Item")


class State(Enum):
    """How far a set can be trusted."""

    COMPLETE = "complete"
    WARNINGS = "warnings"
    INCOMPLETE = "incomplete"
    """A part could not be made; the others are complete."""
    UNFINISHED = "unfinished"
    """The run that made it did not end; the same command resumes it."""
    UNPROVEN = "unproven"
    """Archives without a manifest, as the seed's scripts made them."""
    DAMAGED = "damaged"
    """A part in the manifest is missing or has another size, an archive exists that the manifest
    does not name, or the last verification found something wrong."""


GOOD = frozenset({State.COMPLETE, State.WARNINGS})


@dataclass(frozen=True, slots=True)
class BackupSet:
    """All files of one runtag in one place."""

    runtag: str
    files: Mapping[str, FileFact]
    """By kind: general, influx, manifest, restore, log."""
    state: State
    manifest: Manifest | None = None
    pinned: bool = False
    """It has a pin file: it is never removed."""
    is_marked: bool = False
    """It has a record file: a run makes or copies it, crashed, or could not reach a vault."""

    @property
    def size_bytes(self) -> int:
        """Its size on disk."""
        return sum(fact.size_bytes for fact in self.files.values())

    @property
    def is_foreign(self) -> bool:
        """Whether it is another tool's, or lost its manifest: nothing describes its contents."""
        bare = bool(self.files) and "manifest" not in self.files
        return self.state is State.UNPROVEN or (self.state is State.DAMAGED and bare)

    @property
    def archives(self) -> tuple[str, ...]:
        """The kinds of its archives, whether its manifest names them or not."""
        return tuple(kind for kind in PARTS if kind in self.files)

    @property
    def parts(self) -> tuple[str, ...]:
        """The kinds of archives that belong to the set: those that its manifest lists as made.

        Without a manifest all with its runtag.
        """
        if self.manifest is None:
            return self.archives
        made = {part.kind for part in self.manifest.made}
        return tuple(kind for kind in self.archives if kind in made)

    @property
    def unnamed(self) -> tuple[str, ...]:
        """The kinds of its archives that its manifest does not name."""
        if self.manifest is None:
            return ()
        named = {part.kind for part in self.manifest.parts}
        return tuple(kind for kind in self.archives if kind not in named)

    @property
    def differing(self) -> tuple[str, ...]:
        """How its files differ from its manifest by name and size, a sentence each."""
        if self.manifest is None:
            return ()
        found = []
        for part in self.manifest.made:
            fact = self.files.get(part.kind)
            if fact is None:
                found.append(f"{part.file} is missing.")
            elif fact.size_bytes != part.size_bytes:
                found.append(
                    f"{part.file} has {fact.size_bytes:,} bytes, but the manifest has "
                    f"{part.size_bytes:,}."
                )
        return (*found, *(unnamed_told(self.runtag, kind) for kind in self.unnamed))

    def made(self, zone: object = None) -> datetime | None:
        """Return when it was made (aware): by its manifest, or else by its runtag.

        A runtag holds local time, so `zone` (a tzinfo) says whose; None without either: a file's
        date is that of the copy, not of the backup.
        """
        if self.manifest:
            return read_utc(self.manifest.started_utc)
        local = runtag_time(self.runtag)
        if local is None:
            return None
        try:
            return local.astimezone() if zone is None else local.replace(tzinfo=zone)  # type: ignore[arg-type]
        except (ValueError, OverflowError):  # in the first or last year that Python supports
            return None


def unnamed_told(runtag: str, kind: str) -> str:
    """Return a sentence: an archive exists that the manifest of its set does not name."""
    return f"{runtag}.{PARTS[kind]} exists, but the manifest has no {kind} part."


def judged(backup: BackupSet, manifest: Manifest | None, *, failed_made: str | None) -> BackupSet:
    """Return a set that was listed without its manifest, with the manifest now read.

    None: it exists, but cannot be read. `failed_made`: the finish time of the set that failed its
    last verification there; None if none failed.
    """
    state = _state(
        backup.files,
        manifest,
        unfinished=backup.is_marked,
        opened=True,
        failed_made=failed_made,
    )
    return replace(backup, manifest=manifest, state=state)


def runtags_in(names: Mapping[str, FileFact]) -> frozenset[str]:
    """Return the runtags that have a manifest of a readable size in a listing."""
    small = {name: fact for name, fact in names.items() if fact.size_bytes <= MOST_BYTES}
    return _marked(small, KINDS["manifest"])


def removals_in(names: Mapping[str, FileFact]) -> frozenset[str]:
    """Return the runtags in a listing whose removal began and did not end."""
    return _marked(names, REMOVING_ENDING)


def pins_in(names: Mapping[str, FileFact]) -> frozenset[str]:
    """Return the runtags that are pinned in a listing."""
    return _marked(names, PIN_ENDING)


def marked_in(names: Mapping[str, FileFact]) -> frozenset[str]:
    """Return the runtags that have a record file in a listing."""
    return _marked(names, RECORDS_ENDING)


def by_runtag(names: Mapping[str, FileFact]) -> dict[str, dict[str, FileFact]]:
    """Return the files of a listing by their set, including its marks and partial files.

    Files of no set are left out.
    """
    found: dict[str, dict[str, FileFact]] = {}
    for name, fact in names.items():
        runtag = _runtag_of(name.removesuffix(PARTIAL))
        if runtag:
            found.setdefault(runtag, {})[name] = fact
    return found


def _runtag_of(name: str) -> str:
    """Return the set that a file belongs to, '' for none."""
    told = split_set_name(name)
    if told:
        return told[0]
    marked = next((name.removesuffix(f".{e}") for e in MARKS if name.endswith(f".{e}")), "")
    return marked if is_runtag(marked) else ""


def _marked(names: Mapping[str, FileFact], ending: str) -> frozenset[str]:
    """Return the runtags that have a file with that ending."""
    ending = f".{ending}"
    found = (
        name.removesuffix(ending)
        for name, fact in names.items()
        if name.endswith(ending) and fact.is_file
    )
    return frozenset(runtag for runtag in found if is_runtag(runtag))


def strangers_in(names: Mapping[str, FileFact]) -> tuple[str, ...]:
    """Return the names in a listing that no run of ours wrote, except folders and hidden files."""
    whole = {name.removesuffix(PARTIAL): fact for name, fact in names.items()}
    ours = {f"{runtag}.{ending}" for ending in MARKS for runtag in _marked(whole, ending)}
    return tuple(
        name
        for name, fact in sorted(names.items())
        if not (fact.is_folder or name.startswith(".") or _is_ours(name, fact, ours))
    )


def _is_ours(name: str, fact: FileFact, ours: Container[str]) -> bool:
    name = name.removesuffix(PARTIAL)
    known = name in ours or split_set_name(name) is not None or _LOG_OF_CHANGE.search(name)
    return fact.is_file and bool(known)


def gather_sets(
    names: Mapping[str, FileFact],
    manifests: Mapping[str, Manifest] | None,
    failed: Mapping[str, str] | None = None,
) -> tuple[BackupSet, ...]:
    """Return the sets of a listing, newest first; those without a time come last.

    `manifests` by runtag: those that could be read; None if none was opened: then a set that
    has one counts as complete. `failed`: the runtags whose last verification there found
    something wrong, and when that set was finished: damaged, unless it was made again since.
    """
    read = manifests or {}
    files: dict[str, dict[str, FileFact]] = {}
    unfinished = _marked(names, RECORDS_ENDING)
    removing = removals_in(names)
    pinned = _marked(names, PIN_ENDING)
    for name, fact in names.items():
        found = split_set_name(name)
        if found and fact.is_file:
            files.setdefault(found[0], {})[found[1]] = fact
    for runtag in unfinished:
        files.setdefault(runtag, {})
    sets = [
        BackupSet(
            runtag,
            found_files,
            _state(
                found_files,
                read.get(runtag),
                unfinished=runtag in unfinished,
                opened=manifests is not None,
                failed_made=(failed or {}).get(runtag),
            ),
            read.get(runtag),
            pinned=runtag in pinned,
            is_marked=runtag in unfinished,
        )
        for runtag, found_files in files.items()
        if runtag not in removing and (found_files.keys() - TEXTS.keys() or runtag in unfinished)
    ]
    return newest_first(sets)


def newest_first(
    things: Iterable[Item], set_of: Callable[[Any], BackupSet] = lambda each: each
) -> tuple[Item, ...]:
    """Return sets, or things that have one, newest first; those without a time come last.

    Within one second the later runtag is the newer; for one runtag the order is kept.
    """
    dated = [(set_of(each).made(), set_of(each).runtag, each) for each in things]
    known = sorted((d for d in dated if d[0]), key=lambda d: d[:2], reverse=True)
    unknown = sorted((d for d in dated if not d[0]), key=lambda d: d[1])
    return tuple(each for _, _, each in (*known, *unknown))


def _state(
    files: Mapping[str, FileFact],
    manifest: Manifest | None,
    *,
    unfinished: bool,
    opened: bool,
    failed_made: str | None,
) -> State:
    if "manifest" not in files and unfinished:
        return State.UNFINISHED
    # Clocks are never compared: a set that was made again has another time in its manifest.
    if failed_made is not None and (manifest is None or manifest.finished_utc == failed_made):
        return State.DAMAGED
    if "manifest" not in files:
        return State.UNPROVEN
    if manifest is None:  # it exists, but cannot be read
        return State.DAMAGED if opened else State.COMPLETE
    for part in manifest.made:
        fact = files.get(part.kind)
        if fact is None or fact.size_bytes != part.size_bytes:
            # A set that is being made again keeps its old manifest until the new one is written.
            return State.UNFINISHED if unfinished else State.DAMAGED
    named = {part.kind for part in manifest.parts}
    if any(kind in PARTS and kind not in named for kind in files):
        return State.UNFINISHED if unfinished else State.DAMAGED
    return State(manifest.state)


def files_of(runtag: str) -> tuple[str, ...]:
    """Return the names that a set of that runtag may have, its manifest first, its pin last."""
    endings = (*(KINDS[kind] for kind in ("manifest", *PARTS, *TEXTS)), RECORDS_ENDING, PIN_ENDING)
    return tuple(f"{runtag}.{ending}" for ending in endings)
