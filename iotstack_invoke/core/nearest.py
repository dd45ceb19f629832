"""Suggestions for an unknown name. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], most: int = 1, alike: float = 0.6) -> list[str]:
    """Return the known names that are most like a word, best first, ignoring case.

    The last name of a path counts as well: `volumes/nodered` matches nodered.
    """
    import difflib

    names = {each.lower(): each for each in known}
    asked = (word.lower(), posixpath.basename(word.rstrip("/")).lower())
    found = [each for one in asked for each in difflib.get_close_matches(one, names, most, alike)]
    exact = [each for each in asked if each in names]
    return [names[each] for each in dict.fromkeys((*exact, *found))][:most]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the question that ends a message about an unknown name, '' if no name is like it."""
    near = nearest(word, known)
    return f" Did you mean {near[0]}?" if near else ""
