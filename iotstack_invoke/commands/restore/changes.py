"""What a restore and a reload do alike while they change a target: its log, and what is heard."""

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
    """Hears what a job tells that a person should still read when the run is over."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.stopped_s = time.monotonic()
        """When the stack was stopped."""

    def said(self, _job: object, text: str) -> None:
        """Keep what databases were proven to have, and what of InfluxDB was left out."""
        if text.startswith(STOPPING):
            self.stopped_s = time.monotonic()
        if text.startswith(TOLD_AT_THE_END) and text not in self.told:
            self.told.append(text)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_words: None


@contextlib.contextmanager
def committed(left: str) -> Iterator[None]:
    """Let a signal that comes after the commit, or after the undo, say what is left."""
    try:
        yield
    except Interrupted as error:
        error.left = left
        raise


def log_of(
    change: RestoreId | None, settings: Settings, target: StackHost, died: Iterable[str]
) -> RunLog:
    """Return the log of a change of a target; `died` is what was told of one before it.

    Where it cannot be made, the change goes on without it, and ends with that.
    """
    assert change  # noqa: S101 - the folder is named by us
    path = log_path(settings.stack.folder, target.host, change)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        log = new_log(path)
    except OSError as error:
        log = LostLog(error)
    for text in died:
        log.write("undo", f"warning: {text}")
    return log
