"""Where the notes on the runs of a stack are: in the user's state folder, not beside the backups.

A full or unmounted disk of the backups must not stop the messages about it.
"""

from __future__ import annotations

import hashlib
import os

from ..hosts.local import state_folder

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading a file of it may raise, whatever it holds: then it counts as missing."""


def state_of(stack: str) -> str:
    """Return the folder of the notes on a stack, by the stack's folder; it may not exist."""
    mark = hashlib.sha256(os.fsencode(stack)).hexdigest()[:8]
    return f"{state_folder()}/monitoring/{os.path.basename(stack)}-{mark}"
