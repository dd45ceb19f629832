"""Durations and rates as a person types them: `26h`, `90m`; `2M`, `500K` a second. Pure.

Not for: telling them to a person (report.py).
"""

from __future__ import annotations

import re
from datetime import timedelta

from .errors import UsageError

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_RATES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_DURATION = re.compile(r"(\d{1,5})([mhdw])", re.ASCII)
_RATE = re.compile(r"(\d{1,9})([KMG]?)", re.ASCII)


def read_duration(text: str) -> timedelta:
    """Return the duration that a text tells; raises UsageError, with what it may be."""
    told = _DURATION.fullmatch(text.strip())
    if not told or not int(told[1]):
        raise UsageError(
            f"{text!r} is no duration: it is a whole number, more than 0, and a unit, such as "
            "90m, 26h, 2d or 1w."
        )
    return timedelta(**{_UNITS[told[2]]: int(told[1])})


def read_rate(text: str) -> int:
    """Return the bytes a second that a text tells; raises ValueError, with what it may be."""
    told = _RATE.fullmatch(text)
    if not told or not int(told[1]):
        raise ValueError("must be bytes a second, such as 500K or 2M")
    return int(told[1]) * _RATES[told[2]]
