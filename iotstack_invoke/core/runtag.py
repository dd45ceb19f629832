"""The name of one backup: its grammar, its default and its time.

One grammar for what a user types and for every name read from a disk or a listing.
Not for: finding backups.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import NewType

from .errors import RuntagError

Runtag = NewType("Runtag", str)

LONGEST_BYTES = 100
PUNCTUATION = frozenset(" _-.,+@()")
TIME_FORMAT = "%Y-%m-%d_%H%M"
LATEST = "latest"

_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_-])?")
"""Part of the grammar, for speed: a listing of 10,000 sets checks 40,000 names."""
_DATED = re.compile(r"(\d{4}-\d\d-\d\d_\d{4})(?:-[1-9]\d{0,3})?(?:\..+)?", re.ASCII | re.DOTALL)


def default_runtag(now: datetime) -> Runtag:
    """Return the runtag of a backup made at `now` (local time), as the seed names it."""
    return Runtag(now.strftime(TIME_FORMAT))


def free_runtag(runtag: Runtag, names: Iterable[str]) -> Runtag:
    """Return a runtag of the clock, or `…-2`, `…-3` … after the last that a file has.

    One before it may have been removed, and may still be in a place that cannot be read now.
    `names`: the files of every folder in which it must be free. Files of a crashed run count too.
    """
    taken = {name.partition(".")[0] for name in names if name.startswith(runtag)}
    numbers = [int(each[len(runtag) + 1 :]) for each in taken if _is_numbered(each, runtag)]
    last = max(numbers, default=1 if runtag in taken else 0)
    return Runtag(f"{runtag}-{last + 1}") if last else runtag


def _is_numbered(name: str, runtag: Runtag) -> bool:
    return bool(re.fullmatch(rf"{re.escape(runtag)}-[1-9]\d{{0,5}}", name, re.ASCII))


def read_runtag(text: str) -> Runtag:
    """Return `text` as a runtag.

    Raises RuntagError, which names the wrong character and suggests a valid name.
    """
    mistake = _find_mistake(text)
    if not mistake:
        return Runtag(text)
    cleaned = clean_runtag(text)
    offer = f" Try --runtag '{cleaned}'." if cleaned else ""
    raise RuntagError(f"{text!r} is not a valid runtag: {mistake}.{offer}")


def is_runtag(text: str) -> bool:
    """Return whether `text` follows the grammar."""
    return bool(_PLAIN.fullmatch(text)) or not _find_mistake(text)


def clean_runtag(text: str) -> str:
    """Return the nearest name that follows the grammar, or '' if nothing is left of it."""
    kept = "".join(c if _allowed(c) else "-" for c in unicodedata.normalize("NFC", text))
    kept = re.sub(r"-{2,}", "-", kept).strip("-. ")
    while len(kept.encode()) > LONGEST_BYTES:
        kept = kept[:-1].rstrip("-. ")
    return kept if is_runtag(kept) else ""


def runtag_time(runtag: str) -> datetime | None:
    """Return the local time in a runtag (naive, in minutes); None for a name without one."""
    dated = _DATED.fullmatch(runtag)
    if not dated:
        return None
    try:
        return datetime.strptime(dated[1], TIME_FORMAT)  # noqa: DTZ007 - a runtag has no zone
    except ValueError:  # February 31, for instance
        return None


def _allowed(character: str) -> bool:
    # A mark (M*) is part of a letter in most scripts of India and wherever text is decomposed.
    category = unicodedata.category(character)
    return character in PUNCTUATION or category[0] in "LM" or category == "Nd"


def _find_mistake(text: str) -> str:
    if not text:
        return "it is empty"
    for character in text:
        if not _allowed(character):
            name = unicodedata.name(character, f"U+{ord(character):04X}").lower()
            return (
                f"it holds {character!r} ({name}); letters, digits, spaces and _ - . , + @ ( ) "
                "are allowed"
            )
    if text[0] in "-. ":
        return f"it begins with {text[0]!r}"
    if unicodedata.category(text[0])[0] == "M":
        return "it begins with a combining mark"
    if text[-1] in ". ":
        return f"it ends with {text[-1]!r}"
    size = len(text.encode())
    if size > LONGEST_BYTES:
        return f"it is {size} bytes long and {LONGEST_BYTES} are allowed"
    return ""
