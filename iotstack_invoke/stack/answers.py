"""The output of a script on a host: texts, each followed by NUL."""

from __future__ import annotations

import os

from ..core.errors import StepFailed
from ..hosts.base import Command, Host
from ..hosts.local import read_chunk


def answer(host: Host, words: tuple[str, ...], limit_s: float) -> list[str]:
    """Return the texts that a script prints; raises StepFailed if it fails."""
    content = b""
    with host.pipe(Command(words, timeout_s=limit_s)) as pipe:
        while chunk := read_chunk(pipe.stdout):
            content += chunk
        code = pipe.finish()
    if code:
        raise StepFailed(f"Could not read the files on {host.name} (exit {code}).")
    return [os.fsdecode(each) for each in content.split(b"\0")[:-1]]
