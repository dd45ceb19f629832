"""Asks the user for confirmation."""

from __future__ import annotations

import socket
import sys

from ...core.errors import Refused
from ...reporting.wrapping import answer_to


def confirm(host: str, what: str, flags: str = "--yes") -> None:
    """Ask for confirmation, by the name of a host, or of this machine if it is empty.

    Raises Refused if the user declines, or if there is no terminal, with the flags that confirm.
    """
    name = host or socket.gethostname()
    ask(name, f"{what} there", f"the host's name, {name},", flags)


def ask(name: str, what: str, called: str = "", flags: str = "--yes") -> None:
    """Ask the user to type a name to confirm; raises Refused otherwise."""
    if not sys.stdin.isatty():
        raise Refused(f"No terminal to confirm on; add {flags}.")
    answer = answer_to(f"Type {called or repr(name)} to {what}: ")
    if answer.strip() != name:
        raise Refused("Not confirmed; nothing was changed.")
