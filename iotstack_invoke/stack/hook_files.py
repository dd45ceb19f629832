"""Which paths of a stack the owner's hooks name, by their text alone. Pure.

A shell line is read as a person would read it: its words, `~`, `$HOME` and `$IOTSTACK_FOLDER`. Not
for: whether the paths exist (stack_holdings.py).
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable

from .inside import is_in

LONGEST = 1000
"""A longer word is a script, not a path."""


def paths_named(words: Iterable[str], folders: Iterable[str], home: str) -> tuple[str, ...]:
    """Return the paths of a stack that hooks may name, relative to its folder, sorted.

    `folders`: the names of that folder, first the one to which relative paths refer.
    """
    tops = tuple(folders)
    found = set()
    for word in words:
        for each in (word, *_words_of_line(word)):
            path = posixpath.normpath(posixpath.join(tops[0], _filled(each, tops[0], home)))
            top = next((top for top in tops if path != top and is_in(path, top)), "")
            if top and len(path) < LONGEST and path.isprintable():
                found.add(posixpath.relpath(path, top))
    return tuple(sorted(found))


def _words_of_line(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:  # an unclosed quote
        return line.split()


def _filled(word: str, folder: str, home: str) -> str:
    for name, value in (("IOTSTACK_FOLDER", folder), ("HOME", home)):
        word = word.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return home + word[1:] if word.startswith("~/") else word
