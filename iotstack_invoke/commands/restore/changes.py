"""What a restore and a reload have in common while they change a target: log and messages."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ...core.errors import Interrupted
from ...databases.influxdb.load import PROVEN
from ...databases.influxdb.log import say_internal_left_out
from ...databases.inventory import STAYS
from ...databases.sql.load import SQL_PROVEN
from ...environment.stack_host import StackHost
from ...reporting.run_log import LostLog, RunLog, new_log
from ...settings.model import Settings
from ...stack.stop_start import STOPPING
from ..shared.restore_id import RestoreId
from ..undo.change_logs import log_path

TOLD_AT_THE_END = (PROVEN, SQL_PROVEN, STAYS, say_internal_left_out(2).partition("(")[0])


class Notes:
    """Collects messages of a job that should be shown again after the run."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.stopped_s = time.monotonic()
        """When the stack was stopped."""

    def said(self, _job: object, text: str) -> None:
        """Keep what was verified in databases, and what of InfluxDB was left out."""
        if text.startswith(STOPPING):
            self.stopped_s = time.monotonic()
        if text.startswith(TOLD_AT_THE_END) and text not in self.told:
            self.told.append(text)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_words: None


@contextlib.contextmanager
def committed(left: str) -> Iterator[None]:
    """Make a signal after the commit, or after the undo, report what is left."""
    try:
        yield
    except Interrupted as error:
        error.left = left
        raise


def log_of(
    change: RestoreId | None, settings: Settings, target: StackHost, died: Iterable[str]
) -> RunLog:
    """Return the log of a change of a target; `died` are the messages on an earlier dead run.

    If the log cannot be made, the change continues without it, and reports that at its end.
    """
    assert change  # noqa: S101 - our own folder name
    path = log_path(settings.stack.folder, target.host, change)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        log = new_log(path)
    except OSError as error:
        log = LostLog(error)
    for text in died:
        log.write("undo", f"warning: {text}")
    return log
