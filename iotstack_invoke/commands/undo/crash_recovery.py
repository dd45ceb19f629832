"""Before a run on this machine: removes what dead runs left here and in vaults."""

from __future__ import annotations

import contextlib

from ...backups.names import split_set_name
from ...backups.sets import removals_in
from ...core.errors import StepFailed, Unreachable
from ...engine.journal import Journal
from ...environment.environment import Environment, finish_removals
from ...hosts.base import PARTIAL
from ...reporting.report import Report
from ..shared.vault_listing import Listing, list_vaults
from .interrupted import Owing
from .undo import but_for, tell_death


def recover_here(
    environment: Environment, journal: Journal, report: Report
) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """Undo what a dead run left, remove its partial archives, finish its removals.

    Returns the warnings, which were already shown, and the listing here and of each vault that
    answered. Copying to another vault reports that it is unreachable.
    """
    owing = Owing.of_site(environment)
    owed = owing.undo_all(owing.make_private(report), journal, report)
    death = tell_death(environment.settings, environment.host, owed, report, but_for(journal))
    died = (*death, *journal.told)
    for name in environment.host.listdir(environment.backups):
        found = split_set_name(name.removesuffix(PARTIAL))
        if name.endswith(PARTIAL) and found and found[1] != "log":
            environment.host.remove([f"{environment.backups}/{name}"])
    listed = {"here": environment.host.listdir(environment.backups), **list_vaults(environment)}
    for name, storage in (("here", environment.host), *environment.vaults.items()):
        if not removals_in(listed.get(name, {})):
            continue
        # Before anything is copied there: later copies must not count as removed.
        folder = environment.backups if storage is environment.host else storage.root
        with contextlib.suppress(Unreachable):
            try:
                finish_removals(storage, folder)
                listed[name] = storage.listdir(folder)
            except Unreachable:
                raise
            except StepFailed as error:
                report.warn(f"An old backup is partly removed ({name}): {error}")
    return died, listed
