"""A pin beside a set, here and in every vault that has it: this tool never removes the set."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from ...backups.manifest import PIN_ENDING
from ...backups.sets import gather_sets
from ...core.errors import ExitCode, StepFailed, UsageError
from ...core.runtag import LATEST, Runtag, read_runtag
from ...environment.environment import Environment, write_pin
from ...hosts.base import Storage
from ...reporting.report import Report
from ...settings.model import Settings
from .copies import find_copy, not_found

BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of characters that end a line, or are no text."""


def pin(settings: Settings, asked: str, note: str, report: Report) -> ExitCode:
    """Pin a set in all its locations, and return the exit code; raises NotFound if it has none."""
    if any(unicodedata.category(character) in BREAKING for character in note):
        raise UsageError("--note: write one line of text.")

    def write(storage: Storage, folder: str, runtag: str) -> None:
        write_pin(storage, folder, runtag, f"{note}\n".encode())

    return _change(settings, asked, write, report, said=lambda: "is pinned")


def unpin(settings: Settings, asked: str, report: Report) -> ExitCode:
    """Remove the pin of a set in all locations, and return the exit code; raises NotFound."""
    pinned = []

    def remove(storage: Storage, folder: str, runtag: str) -> None:
        path = f"{folder}/{runtag}.{PIN_ENDING}"
        if storage.stat([path]):
            pinned.append(path)
            storage.remove([path])

    return _change(
        settings,
        asked,
        remove,
        report,
        said=lambda: "is no longer pinned" if pinned else "was not pinned",
    )


def _runtag_of(environment: Environment, asked: str, report: Report) -> Runtag:
    """Return the selected runtag: of the newest set, here or in a vault."""
    if asked == LATEST:
        asked = find_copy(environment, asked, "", environment.checks.newest(), report.warn).runtag
    return read_runtag(asked)


def _change(
    settings: Settings,
    asked: str,
    change: Callable[[Storage, str, str], None],
    report: Report,
    *,
    said: Callable[[], str],
) -> ExitCode:
    """Change the pin of a set in each location that has it; a failure does not stop the others."""
    environment = Environment.of(settings)
    storages: dict[str, tuple[Storage, str]] = {"here": (environment.host, environment.backups)}
    storages |= {name: (storage, storage.root) for name, storage in environment.vaults.items()}
    known = dict[str, None]()
    done, troubles = [], []
    try:
        runtag = _runtag_of(environment, asked, report)
        with environment.held(f"pin {runtag}"):
            for name, (storage, folder) in storages.items():
                try:
                    names = storage.listdir(folder)
                    there = {each.runtag: None for each in gather_sets(names, {})}
                    known |= there
                    if runtag in there:
                        change(storage, folder, runtag)
                        done.append(name)
                except StepFailed as error:
                    troubles.append(f"{name}: {error}")
    finally:
        environment.close()
    for trouble in troubles:
        report.fail(f"Could not change the pin of {runtag} in {trouble}")
    if done:
        report.write(f"{runtag} {said()} in: {', '.join(done)}.")
    elif not troubles:
        raise not_found(runtag, known, ", ".join(storages))
    return ExitCode.FAILED if troubles else ExitCode.GOOD
