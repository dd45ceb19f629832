"""A person is asked whether it is meant."""

from __future__ import annotations

import sys

from ..errors import Refused
from ..wrapping import answer_to


def ask(name: str, what: str, called: str = "", flags: str = "--yes") -> None:
    """Let a person type a name if something is meant; raises Refused where nobody does."""
    if not sys.stdin.isatty():
        raise Refused(f"Nobody is there to confirm. If it is meant, add {flags}.")
    answer = answer_to(f"Type {called or repr(name)} to {what}: ")
    if answer.strip() != name:
        raise Refused("Not confirmed; nothing was changed.")
