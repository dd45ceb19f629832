"""What lies in each vault."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from ...core.errors import StepFailed
from ...environment.environment import Environment
from ...hosts.base import FileFact
from ...hosts.local import run_parallel

Listing = Mapping[str, FileFact]

VAULTS_LIMIT_S = 900.0
"""How long vaults may take to be listed. Each question to one has a limit of its own: this one is
for what nobody thought of, so that a backup is made here all the same."""


def list_vaults(environment: Environment) -> dict[str, Listing]:
    """Return what lies in each vault that answers: whoever copies to another tells of it.

    All are asked at the same time: those that are silent cost no more than one of them.
    """
    asks = {
        name: functools.partial(storage.listdir, storage.root)
        for name, storage in environment.vaults.items()
    }
    told = run_parallel(asks, VAULTS_LIMIT_S)
    return {name: each for name, each in told.items() if not isinstance(each, StepFailed)}
