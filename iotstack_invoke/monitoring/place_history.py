"""What the last look at each place of backups found, and its free space over the days: one file.

A look at a vault wakes the disks of a NAS: between two runs the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime

from ..backups.manifest import utc_text
from ..core.dataclass import dataclass
from .anomalies import Sample
from .stack_facts import PlaceFacts
from .state import StateFile, moment_of, number_of, state_of

MOST_DAYS = 60
MOST_BYTES = 1 << 20
_TIMES = ("newest", "verified")


@dataclass(frozen=True, slots=True)
class PlaceHistory:
    """The last look at a place, and one sample a day, oldest first."""

    place: PlaceFacts
    samples: tuple[Sample, ...] = ()

    def seen(self, place: PlaceFacts, now: datetime) -> PlaceHistory:
        """Return the history after another look."""
        if place.trouble or place.free_bytes is None:
            return PlaceHistory(place, self.samples)
        today = now.date()
        earlier = [each for each in self.samples if each.at.date() < today and each.at < now]
        return PlaceHistory(place, (*earlier, Sample(now, place.free_bytes))[-MOST_DAYS:])


class PlaceFile:
    """This user's file of the places of the stack in a folder."""

    def __init__(self, stack: str) -> None:
        self._file = StateFile(f"{state_of(stack)}/places.json", MOST_BYTES)

    def read(self) -> dict[str, PlaceHistory]:
        """Return the history of each place by its name; {} without a file that can be read."""
        return self._file.read(_read) or {}

    def write(self, histories: Iterable[PlaceHistory]) -> None:
        """Replace the file; raises StepFailed, and the earlier one stays."""
        self._file.write(list(map(_row, histories)))


def _row(history: PlaceHistory) -> dict[str, object]:
    place = asdict(history.place)
    times = {key: place[key] and utc_text(place[key]) for key in _TIMES}
    samples = [[utc_text(each.at), each.free_bytes] for each in history.samples]
    return {**place, **times, "samples": samples}


def _read(rows: Iterable[Mapping[str, object]]) -> dict[str, PlaceHistory]:
    return {each.place.name: each for each in map(_read_one, rows)}


def _read_one(row: Mapping[str, object]) -> PlaceHistory:
    times = {key: moment_of(row[key]) if row[key] else None for key in _TIMES}
    place = PlaceFacts(
        name=str(row["name"]),
        sets=number_of(row["sets"]),
        size_bytes=number_of(row["size_bytes"]),
        free_bytes=None if row["free_bytes"] is None else number_of(row["free_bytes"]),
        trouble=str(row["trouble"]),
        **times,
    )
    samples = row["samples"]
    if not isinstance(samples, list):
        raise TypeError
    return PlaceHistory(
        place, tuple(Sample(moment_of(at), number_of(free)) for at, free in samples)
    )
