"""Durations and rates as a user types them: `26h`, `90min`; `2M`, `08:00,500K 23:00,off`. Pure.

Not for: printing them (report.py).
"""

from __future__ import annotations

import re
from datetime import timedelta
from time import struct_time

from .dataclass import dataclass
from .errors import UsageError

_UNITS = {"min": "minutes", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_RATES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_DURATION = re.compile(r"(\d{1,5})(min|[mhdw])", re.ASCII)
_BARE_M = re.compile(r"\d{1,5}m(?!in|o)", re.ASCII)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_SLOT = re.compile(r"(?:([A-Za-z]{3})-)?([01]\d|2[0-3]):([0-5]\d),(\S*)", re.ASCII)
_RATE = re.compile(r"(\d{1,9})([KMG]?)", re.ASCII)


def ambiguity_in(text: str) -> str:
    """Return why a span with the unit `m`, minutes or months, is refused; '' for any other."""
    found = _BARE_M.search(text)
    if not found:
        return ""
    return f"{found[0]} may mean minutes or months: write {found[0]}o (minutes are not possible)"


def read_duration(text: str) -> timedelta:
    """Return a duration from its text; raises UsageError, which says what is allowed.

    `m` means minutes, like `min`: there are no months here, and crontabs use `m`.
    """
    told = _DURATION.fullmatch(text.strip())
    if not told or not int(told[1]):
        raise UsageError(
            f"{text!r} is not a duration: write a whole number, more than 0, and a unit (min, h, "
            "d or w), such as 90min, 26h, 2d or 1w."
        )
    return timedelta(**{_UNITS[told[2]]: int(told[1])})


def read_rate(text: str) -> int:
    """Return the bytes per second of a text; raises ValueError, which says what is allowed."""
    told = _RATE.fullmatch(text)
    if not told or not int(told[1]):
        raise ValueError(
            "must be bytes a second, such as 500K or 2M, or a time table, such as "
            "08:00,512K 23:00,off"
        )
    return int(told[1]) * _RATES[told[2]]


@dataclass(frozen=True, slots=True)
class TimeTable:
    """How many bytes per second are allowed at which time of the week; 0: no limit.

    `slots`: pairs of the minute since Monday 00:00 and the rate from then on, by minute.
    """

    slots: tuple[tuple[int, int], ...]

    def rate_at(self, when: struct_time) -> int:
        """Return the rate at a local time; before the first slot, that of the week's last one."""
        minute = when.tm_wday * _DAY_MINUTES + when.tm_hour * 60 + when.tm_min
        rate = self.slots[-1][1]
        for begin, each in self.slots:
            if begin > minute:
                break
            rate = each
        return rate


def read_rates(text: str) -> TimeTable:
    """Return the time table, or the single rate, of a text; the grammar is rclone's.

    https://rclone.org/docs/#bwlimit. Not its units: a number alone is bytes here, and K is 1,000
    (there KiB, and 1,024). Raises ValueError, which says what is allowed.
    """
    if "," not in text:
        return TimeTable(((0, 0 if text == "off" else read_rate(text)),))
    slots: dict[int, int] = {}
    for each in re.split(r"[ ;]+", text.strip()):
        told = _SLOT.fullmatch(each)
        day = (told[1] or "").lower() if told else ""
        if not told or (day and day not in _DAYS) or not (_is_rate(told[4]) or told[4] == "off"):
            raise ValueError(
                f"has {each!r}, which must be a time and bytes a second, or off, such as "
                "08:00,512K or Mon-23:00,off"
            )
        rate = 0 if told[4] == "off" else read_rate(told[4])
        for number in (_DAYS.index(day),) if day else range(len(_DAYS)):
            minute = number * _DAY_MINUTES + int(told[2]) * 60 + int(told[3])
            if minute in slots:
                raise ValueError(f"sets {told[2]}:{told[3]} twice")
            slots[minute] = rate
    return TimeTable(tuple(sorted(slots.items())))


def _is_rate(text: str) -> bool:
    told = _RATE.fullmatch(text)
    return bool(told and int(told[1]))
