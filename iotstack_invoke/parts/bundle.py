"""Services that are saved together with their database, in one part.

The differences between services are in table.toml; names in the parts are IOTstackBackup's.
"""

from __future__ import annotations

import posixpath
import re
import time

from ..backups.bundles import DUMP_FOLDER, RECIPES
from ..core import processes
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..databases.sql.servers import MARIADB, SqlServer
from ..engine.steps import HostAccess, HostStep, StepContext
from ..hosts.base import ANY_EXIT, Command
from ..services.known import Recipe
from ..stack.quiesce import MARK, QUIET_LIMIT_S, Quiesce, exec_words, quiet_of

DUMP = f"{DUMP_FOLDER}/{MARIADB.member}"
"""The dump in a part."""
ANSWER_LIMIT_S = 300.0
ANSWER_PAUSE_S = 1.0
_NOT_UP = re.compile(r"is not running|is restarting|No such container")
"""Docker's message if it can run nothing in a container; the step that waited gave the reason."""


@dataclass(frozen=True, slots=True)
class RecipeInUse:
    """A recipe, and the containers of a stack that it is for."""

    name: str
    recipe: Recipe
    container: str
    runs: bool
    server: SqlServer
    exclusions: tuple[str, ...] = ()
    """What is left out, relative to its folder."""

    def quiet(self, access: HostAccess, backups: str) -> Quiesce | None:
        """Return the step that makes it quiet; None if not needed, or if it does not run."""
        recipe = self.recipe
        if not recipe.enter or not self.runs:
            return None
        mark, lock = f"{backups}/{MARK}{self.name}", f"{backups}/.lock"
        return quiet_of(access, self.name, recipe, self.container, mark, lock)


def data_of(recipe: Recipe) -> str:
    """Return where IOTstack's template maps the data of the database, below the stack."""
    return posixpath.join(recipe.folder, "db", MARIADB.homes[0][1])


@dataclass(frozen=True, slots=True)
class EndQuiet(HostStep):
    """Resume a restored service: files copied while it was quiet record it as quiet."""

    container: str
    ask: tuple[str, ...]
    awake: str
    leave: tuple[str, ...]
    runs: bool = True

    def commands(self) -> tuple[str, ...]:
        """Return the commands."""
        return (str(Command(self.ask)), str(Command(self.leave)))

    def do(self, context: StepContext) -> None:
        """Wait until it answers; raises StepFailed if it runs and does not resume."""
        if not self.runs:
            self._warn(context, "is not running, so it was not started")
            return
        host = self.access.host(context)
        deadline = time.monotonic() + ANSWER_LIMIT_S
        while True:
            told = host.run(Command(self.ask, ANY_EXIT, QUIET_LIMIT_S))
            if told.exit_code == 0 and self.awake in told.out:
                return
            if told.exit_code == 0:
                left = Command(self.leave, ANY_EXIT, QUIET_LIMIT_S)
                host.run(left, context.log_output)
            if _NOT_UP.search(told.err):
                self._warn(context, "is not up")
                return
            if time.monotonic() > deadline:
                raise StepFailed(f"Container {self.container} did not resume: {told.last_line}")
            context.status(f"waiting for {self.container}")
            processes.pause(ANSWER_PAUSE_S)

    def _warn(self, context: StepContext, why: str) -> None:
        context.warn(
            f"Container {self.container} {why}, and its restored files are from while it was "
            f"paused for the backup. When it is running, resume it: {Command(self.leave)}"
        )


def end_quiet(access: HostAccess, name: str, container: str, *, runs: bool) -> EndQuiet | None:
    """Return the step that resumes a restored service, None if it is never made quiet."""
    recipe = RECIPES[name]
    if not recipe.enter:
        return None
    ask, leave = (
        exec_words(access.docker, container, recipe, e) for e in (recipe.ask, recipe.leave)
    )
    return EndQuiet(access, container, ask, recipe.awake, leave, runs)
