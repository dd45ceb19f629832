"""The log of a backup, in the folder of backups: another machine's is written on this one first.

So a lost connection loses nothing of it. The log of an unfinished run stays here, and a run that
resumes the set appends to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from urllib.parse import quote

from ...backups.names import KINDS
from ...core.errors import StepFailed, ended
from ...environment.environment import Environment
from ...hosts.base import PARTIAL
from ...hosts.local import state_folder
from ...reporting.run_log import RunLog


def open_log(environment: Environment, runtag: str) -> RunLog:
    """Return the log of a set, with its former contents; raises OSError, StepFailed."""
    name = f"{runtag}.{KINDS['log']}"
    if not environment.far:
        return RunLog(f"{environment.backups}/{name}")
    path = f"{state_folder()}/backups/{quote(environment.host.name, safe='')}/{name}"
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    for content in environment.host.read_many(environment.backups, [name]).values():
        with open(path, "xb", opener=lambda p, flags: os.open(p, flags, 0o600)) as earlier:
            earlier.write(content)
    return RunLog(path)


def finish_log(environment: Environment, runtag: str, log: RunLog) -> None:
    """Give the log its final name, on the machine of the stack; raises StepFailed."""

    def send(partial: str, path: str) -> None:
        there = f"{environment.backups}/{runtag}.{KINDS['log']}"
        with open(partial, "rb") as source, environment.host.create(there + PARTIAL) as target:
            shutil.copyfileobj(source, target)
        environment.host.rename(there + PARTIAL, there)
        for each in (partial, path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each)

    log.add_checksum()
    if not environment.far:
        log.finish(environment.host.rename)
        return
    try:
        log.finish(send)
    except (StepFailed, OSError) as error:
        raise StepFailed(
            f"Could not copy the log of {runtag} to {environment.host.name}: {ended(error)} It "
            f"is in {log.path}{PARTIAL}; run the same command with --runtag '{runtag}' to copy it."
        ) from error
