"""The listing of each vault."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from ...core.errors import StepFailed
from ...environment.environment import Environment
from ...hosts.base import FileFact
from ...hosts.local import run_parallel

Listing = Mapping[str, FileFact]

VAULTS_LIMIT_S = 900.0
"""The time limit for listing vaults.

Each query to one has a limit of its own: this one is for unexpected cases, so that a backup is
still made here.
"""


def list_vaults(environment: Environment) -> dict[str, Listing]:
    """Return the listing of each vault that answers; copying to the others reports the error.

    All are queried in parallel: several unresponsive ones cost no more time than one.
    """
    asks = {
        name: functools.partial(storage.listdir, storage.root)
        for name, storage in environment.vaults.items()
    }
    told = run_parallel(asks, VAULTS_LIMIT_S)
    return {name: each for name, each in told.items() if not isinstance(each, StepFailed)}
