"""Durations as a person types them: `26h`, `90m`, `2d`. Pure.

Not for: telling a duration to a person (report.py).
"""

from __future__ import annotations

import re
from datetime import timedelta

from .errors import UsageError

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d{1,5})([mhdw])", re.ASCII)


def read_duration(text: str) -> timedelta:
    """Return the duration that a text tells; raises UsageError, with what it may be."""
    told = _DURATION.fullmatch(text.strip())
    if not told or not int(told[1]):
        raise UsageError(
            f"{text!r} is no duration: it is a whole number, more than 0, and a unit, such as "
            "90m, 26h, 2d or 1w."
        )
    return timedelta(**{_UNITS[told[2]]: int(told[1])})
