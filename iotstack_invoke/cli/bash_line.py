"""A command line as it is typed in bash: its words, and what may replace its end. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_WORD = re.compile(
    r"""(?: \\. | '[^']*(?:'|$) | "(?:\\.|[^"\\])*(?:"|\\?$) | [^\s'"\\] | \\$ )+""",
    re.VERBOSE | re.DOTALL,
)
"""One word as bash reads it; its last quote may be open."""
_QUOTED = re.compile(
    r"""\\(?P<plain>.?) | '(?P<single>[^']*)(?P<end>'?)
    | "(?P<double>(?:\\.|[^"\\])*)\\?(?P<stop>"?)""",
    re.VERBOSE | re.DOTALL,
)
_SPECIAL = {"": re.compile(r"([^\w@%+=:,./-])"), '"': re.compile(r'([\\"$`])')}
"""What needs a backslash outside of quotes, and inside of double ones."""


def split_line(line: str) -> tuple[list[str], str]:
    """Return the words of a command line of bash without their quotes, and the last one as typed.

    After a space the last one is ''.
    """
    found = [*_WORD.finditer(line)]
    raw = [each[0] for each in found]
    if not found or found[-1].end() < len(line):
        raw.append("")
    return [_unquoted(each)[0] for each in raw], raw[-1]


def _unquoted(raw: str) -> tuple[str, str]:
    """Return what a text of bash means, and the quote that is open at its end, or ''."""
    still_open = ""

    def meant(found: re.Match[str]) -> str:
        nonlocal still_open
        if found["single"] is not None:
            still_open = "" if found["end"] else "'"
            return found["single"]
        if found["double"] is not None:
            still_open = "" if found["stop"] else '"'
            return re.sub(r'\\([\\"$`])', r"\1", found["double"])
        return found["plain"] or ""

    return _QUOTED.sub(meant, raw), still_open


def bash_replies(words: Iterable[str], raw: str, text: str) -> Iterator[str]:
    """Yield what bash may put in place of `text`, the end of the last word as typed, `raw`.

    What is before it stays: an opening quote, or `--at=`, since = and : end a word for bash.
    """
    kept, quote = _unquoted(raw.removesuffix(text))
    begun = _unquoted(raw)[0]
    for word in words:
        if word.startswith(begun):
            rest = word[len(kept) :]
            if quote == "'":
                yield rest.replace("'", "'\\''")
            else:
                yield _SPECIAL[quote].sub(r"\\\1", rest)
