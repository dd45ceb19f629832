"""Writes the file that the textfile collector of Prometheus' node_exporter reads."""

from __future__ import annotations

import os

from ..core.errors import StepFailed, ended
from ..hosts.local import LocalHost

MODE = 0o644
"""The exporter runs as a user of its own."""


def write_textfile(path: str, text: str) -> None:
    """Replace the file atomically; raises StepFailed, and the old one stays.

    The partial file beside it does not end with .prom, so the exporter ignores it.
    """
    folder = os.path.dirname(path)
    try:
        LocalHost(folder).replace(path, text.encode(), MODE)
    except StepFailed as error:
        raise StepFailed(
            f"{ended(error)} Make {folder} writable for this user, or "
            "change textfile of [metrics] in hosts.toml."
        ) from error
