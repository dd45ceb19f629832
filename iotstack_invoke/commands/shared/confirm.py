"""A person is asked whether it is meant."""

from __future__ import annotations

import socket
import sys

from ...core.errors import Refused
from ...reporting.wrapping import answer_to


def confirm(host: str, what: str, flags: str = "--yes") -> None:
    """Ask whether it is meant, for the name of a host, or of this machine without one.

    Raises Refused where it is not, or where nobody is there, with the flags that say that it is.
    """
    name = host or socket.gethostname()
    ask(name, f"{what} there", f"the host's name, {name},", flags)


def ask(name: str, what: str, called: str = "", flags: str = "--yes") -> None:
    """Let a person type a name if something is meant; raises Refused where nobody does."""
    if not sys.stdin.isatty():
        raise Refused(f"No terminal to confirm on; add {flags}.")
    answer = answer_to(f"Type {called or repr(name)} to {what}: ")
    if answer.strip() != name:
        raise Refused("Not confirmed; nothing was changed.")
