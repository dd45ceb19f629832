"""Wraps lines at the width of a terminal, at whole words, with an indent.

Spaces fill the row instead of a line break: a command copied from it is one line.
"""

from __future__ import annotations

import os
import re
import sys
from typing import IO

from ..core.errors import Interrupted

HANGING = 2
"""The indent of continuation rows."""
NARROW = 40
"""Below this width nothing is indented."""

BREAK = re.compile(r" (?!(?<=\d )(?:s|min|h|[kMGT]?B|%)(?!\w))")
"""A space at which a line may wrap: a number and its unit stay together."""


def columns_of(stream: IO[str]) -> int:
    """Return the width of a terminal, 0 if a stream is not one."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


def answer_to(question: str) -> str:
    """Ask the user at the terminal, and return the answer: '' for Ctrl-D."""
    try:
        return input(wrapped(question, columns_of(sys.stdout)))
    except EOFError:
        sys.stdout.write("\n")
        return ""
    except (Interrupted, KeyboardInterrupt):  # the message about it begins a new line
        sys.stdout.write("\n")
        raise


def wrapped(text: str, width: int) -> str:
    """Return a text whose words are not cut by the edge of a terminal, if they fit at all."""
    if width < NARROW or "\t" in text:
        return text
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    if len(line) <= width and (line.isascii() or _columns(line) <= width):
        return line
    words = BREAK.split(line.lstrip(" "))
    begin = len(line) - len(line.lstrip(" "))
    hanging = min(begin, width // 2) + HANGING
    if begin + _columns(words[0]) > width >= _columns(words[0]):
        begin = 0
    told, column = " " * begin + words[0], _at(begin + _columns(words[0]), width)
    for word in words[1:]:
        long = _columns(word)
        if column + 1 + long > width >= hanging + long:
            told += " " * (width - column + hanging) + word
            column = hanging + long
        elif column + 1 + long > width >= long:  # a path that does not fit after an indent
            told += " " * (width - column) + word
            column = long
        else:
            told += " " + word
            column = _at(column + 1 + long, width)
    return told


def _at(columns: int, width: int) -> int:
    """Return how much of its last row a line of so many columns fills."""
    return (columns - 1) % width + 1 if columns else 0


def _columns(text: str) -> int:
    """Return how many columns a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
