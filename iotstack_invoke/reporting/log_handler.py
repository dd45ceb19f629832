"""Messages as records of Python's logging: printed to stderr, with their level for the journal.

`-vv` also shows what paramiko logs of a connection: it logs no secret. Other libraries stay
silent: what apprise or Invoke log may hold an address with a token, or the environment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import IO

LOGGER = logging.getLogger("iotstack_invoke")
OF_LIBRARIES = "paramiko"
PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""The least level of each priority of sd-daemon(3); below all of them it is 7."""

QUIET, WITH_STEPS, WITH_LINES = -1, 1, 2
"""The verbosity of -q, -v and -vv; 0 without them."""
Print = Callable[[str, int, str | None], None]
"""Print a text of a level, in a style of Rich or in the usual one of its level."""


class MessageHandler(logging.Handler):
    """Prints each record. It takes no lock: a signal that raises could leave one locked."""

    def __init__(self, print_message: Print) -> None:
        super().__init__()
        self._print = print_message

    def createLock(self) -> None:  # noqa: N802 - the name of logging
        """Make no lock: each text is printed by one write."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; one of a library with its name."""
        text = record.getMessage()
        told = text if record.name == LOGGER.name else f"{record.name}: {text}"
        self._print(told, record.levelno, getattr(record, "style", None))


def handle_messages(print_message: Print, verbosity: int) -> None:
    """Let messages be printed so from now on; with `verbosity` 2 those of a library too."""
    handler = MessageHandler(print_message)
    LOGGER.handlers = [handler]
    LOGGER.propagate = False
    LOGGER.setLevel(logging.DEBUG)
    library = logging.getLogger(OF_LIBRARIES)
    shows_library = verbosity >= WITH_LINES
    library.handlers = [handler if shows_library else logging.NullHandler()]
    library.setLevel(logging.DEBUG if shows_library else logging.NOTSET)


def is_journal(stream: IO[str]) -> bool:
    """Return whether a stream goes to systemd's journal (systemd.exec(5), $JOURNAL_STREAM)."""
    journal = os.environ.get("JOURNAL_STREAM")
    if not journal:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal == f"{found.st_dev}:{found.st_ino}"


def for_journal(text: str, level: int) -> str:
    """Return a text with its priority before each line, as the journal reads it (sd-daemon(3))."""
    priority = next((number for least, number in PRIORITIES if level >= least), 7)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines() or [""])
