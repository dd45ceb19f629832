"""Make a service quiet while its files are copied, and resume it in every case.

A mark file records that a service must be resumed. `Resume` does so, or the undo, or the journal
after a power cut; after SIGKILL a watcher, which detects the end of the run by its lock: the
kernel releases that.
"""

from __future__ import annotations

import posixpath
import shlex
import time
from collections.abc import Mapping
from typing import Any

from ..core import processes
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import HostAccess, HostStep, StepContext
from ..hosts.base import ANY_EXIT, Command, Host, sh
from ..hosts.trust import believed
from ..services.known import Recipe, packaged_recipes

MARK = ".quiet-"
"""The first part of a mark's name; the name of a stopped container or of a recipe follows."""
QUIET_LIMIT_S = 120
"""The time limit for making a service quiet, or resuming it; a container may need a minute."""
INSIDE_LIMIT_S = 100
"""The same for a program in a container, to which Docker passes no signal: it ends there first."""
TIMED_OUT = 124
"""timeout(1) exits with this after a timeout."""
# A program that outlives its limit would make the service quiet when no process is left to resume
# it. timeout(1) of older Alpines has no -k, or another form; an image without it has no limit.
BOUND = (
    'limit=$1; shift; timeout -k 5 9 true 2>/dev/null && exec timeout -k 5 "$limit" "$@"; '
    'timeout 9 true 2>/dev/null && exec timeout "$limit" "$@"; exec "$@"'
)
AWAKE_LIMIT_S = 60.0
AWAKE_PAUSE_S = 0.5
STOP_S = 60
STATE_FORM = (
    "{{.State.Running}} {{.State.Restarting}}\n{{.State.Status}}, exit code {{.State.ExitCode}}"
)
"""The format of the query; the second line is for messages."""
SETTLE_S = 3.0
"""How long a container must have been up: a program may end a moment after its start."""

# The mark is also the lock for making quiet and resuming: `leave` waits for an `enter` that
# outlived its run, and of two processes that resume the second finds no mark. The mark is opened
# for reading, so it is never recreated.
_LEAVE = (
    'flock --timeout "$limit" 9 || { echo "the command before it does not end" >&2; exit 1; }; '
    'exec 8<&-; [ -e "$mark" ] || exit 0; '
    'timeout "$limit" "$@" 9<&- && rm -f "$mark" && sync "$(dirname "$mark")"'
)
LEAVE = (
    f'mark=$1 limit=$2; shift 2; ( {_LEAVE} ) 9<"$mark" || '
    '{ code=$?; [ ! -e "$mark" ] || exit "$code"; }'
)
# The watcher polls the run's lock without waiting for it: a waiting process gets the lock when a
# run ends well, and the next run finds it taken. It keeps the lock until it has the mark's lock:
# the next run waits for that.
LIVES = 75
WATCH = (
    'lock=$1 mark=$2 limit=$3; shift 3; tries=0; while [ -e "$mark" ] && [ $tries -lt 60 ]; do '
    f'( flock --nonblock 8 || exit {LIVES}; exec 9<"$mark"; {_LEAVE} ) 8<"$lock"; '
    f"if [ $? = {LIVES} ]; then sleep 1; else tries=$((tries + 1)); sleep 5; fi; done"
)
DETACH = 'setsid "$@" < /dev/null > /dev/null 2>&1 &'


@dataclass(frozen=True, slots=True)
class Quiesce(HostStep):
    """Make a service quiet, unless it already is. Undo resumes it, if this step made it quiet.

    A service that is not quiet answers `ask` with `awake`.
    """

    journaled_as = "Quiesce"

    name: str
    ask: tuple[str, ...]
    awake: str
    enter: tuple[str, ...]
    leave: tuple[str, ...]
    mark: str
    """A file that exists while the service must be resumed."""
    lock: str
    """The lock that the run holds as long as it lives."""
    settle_s: float = 0
    """How long it must have been awake to count as resumed."""
    advice: str = ""
    """What to do if it does not resume; '' if `leave` is enough."""
    container: str = ""
    recipe: str = ""
    """The service with the recipe; '' for a container that is stopped."""

    def journaled(self) -> Mapping[str, Any]:
        """Return what a journal holds of it: commands are read from the recipe again."""
        return {"mark": self.mark, "container": self.container, "recipe": self.recipe}

    @classmethod
    def of_earlier(cls, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a step in a journal; older ones held the commands as well.

        The commands of a recipe name the container after the user that runs them.
        """
        name = posixpath.basename(str(told["mark"])).removeprefix(MARK)
        recipe = name if name in packaged_recipes() else ""
        found = {"mark": told["mark"], "recipe": recipe}
        if "container" in told:
            return {**found, "container": told["container"], "recipe": told["recipe"]}
        words = [*told["leave"]]
        return {**found, "container": words[words.index("--user") + 2] if recipe else name}

    @classmethod
    def revived(
        cls, access: HostAccess, mark: str, container: str, recipe: str, lock: str
    ) -> Quiesce:
        """Return the step from today's recipe, or that of a container that is stopped."""
        if not recipe:
            return stopped_at(access, container, mark, lock)
        return quiet_of(access, recipe, packaged_recipes()[recipe], container, mark, lock)

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(Command(self.enter)),)

    def do(self, context: StepContext) -> None:
        """Make it quiet; raises StepFailed if it is unknown whether it already is."""
        host = self.access.host(context)
        if not believed(host, self.mark):  # its owner could hold it, as a lock, forever
            host.remove([self.mark])
        if not self._is_awake(host):
            context.status(f"{self.name} is quiet already")
            return
        # From here on the service must be resumed: the mark is on disk before any service is
        # disturbed.
        host.append(self.mark, self.name)
        leave = self._bounded(self.leave)
        watch = sh(WATCH, self.lock, self.mark, str(QUIET_LIMIT_S), *leave)
        host.run(Command(sh(DETACH, *watch), label=f"watch {self.mark}"))
        context.status(f"{self.name} is made quiet")
        called = str(Command(self.enter))
        enter = self._bounded(self.enter)
        words = ("flock", self.mark, "timeout", str(QUIET_LIMIT_S), *enter)
        command = Command(words, frozenset({0, TIMED_OUT}), QUIET_LIMIT_S + 10, called)
        if host.run(command, context.log_output).exit_code:
            raise StepFailed(
                f"{self.name} was not made quiet: `{called}` did not end within {self._limit_s} "
                "s and was stopped. It was not copied, and is resumed. To see its state: "
                f"`{Command(self.ask)}`."
            )

    def undo(self, host: Host) -> None:
        """Resume it if this step made it quiet; whether it has resumed, `wait` checks.

        Raises StepFailed, with the command to type, if its command fails.
        """
        leave = self._bounded(self.leave)
        words = sh(LEAVE, self.mark, str(QUIET_LIMIT_S), *leave)
        accept, limit_s = frozenset({0, TIMED_OUT}), 2 * QUIET_LIMIT_S + 10
        command = Command(words, accept, limit_s, label=str(Command(self.leave)))
        if not host.stat([self.mark]):
            return
        try:
            told = host.run(command)
        except StepFailed as error:
            raise StepFailed(self._still_quiet(str(error))) from error
        if told.exit_code:
            why = f"`{command.label}` did not end within {self._limit_s} s and was stopped"
            raise StepFailed(self._still_quiet(why))

    def wait(self, host: Host) -> None:
        """Wait until it has resumed; raises StepFailed, with the command to type, if not."""
        deadline = time.monotonic() + AWAKE_LIMIT_S
        since = 0.0
        while True:
            told = host.run(Command(self._bounded(self.ask), ANY_EXIT, QUIET_LIMIT_S))
            now = time.monotonic()
            awake = told.exit_code == 0 and self.awake in told.out
            since = (since or now) if awake else 0
            if since and now - since >= self.settle_s:
                return
            if now > deadline:
                why = f"its state after {AWAKE_LIMIT_S:g} s: {told.last_line}"
                raise StepFailed(self._still_quiet(why))
            processes.pause(AWAKE_PAUSE_S)

    @property
    def _limit_s(self) -> int:
        return INSIDE_LIMIT_S if self.recipe else QUIET_LIMIT_S

    def _bounded(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """Return a command with a time limit inside its container, not only for its `docker`."""
        if not self.recipe:
            return words
        at = len(self.access.docker) + len(("exec", "--user", "who", "container"))
        return (*words[:at], *sh(BOUND, str(INSIDE_LIMIT_S), *words[at:]))

    def _is_awake(self, host: Host) -> bool:
        told = host.run(Command(self._bounded(self.ask), timeout_s=QUIET_LIMIT_S)).out
        return self.awake in told

    def _still_quiet(self, why: str) -> str:
        advice = self.advice or f"Run: {Command(self.leave)}"
        return f"{self.name} did not resume ({why}). {advice}"


@dataclass(frozen=True, slots=True)
class Resume:
    """Resume a service that was made quiet, and check that it did.

    If it does not, that is a warning: the files that were copied of it are still good.
    """

    quiet: Quiesce

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(Command(self.quiet.leave)),)

    def do(self, context: StepContext) -> None:
        """Resume it; warn, with the command to type, if it is not up in a minute."""
        host = self.quiet.access.host(context)
        if host.stat([self.quiet.mark]):
            try:
                self.quiet.undo(host)
                self.quiet.wait(host)
            except StepFailed as error:
                context.warn(f"{error} Its files were saved before.")


def exec_words(
    docker: tuple[str, ...], container: str, recipe: Recipe, words: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the command that runs a program in a service's container."""
    return (*docker, "exec", "--user", recipe.user, container, *words)


def quiet_of(
    access: HostAccess, name: str, recipe: Recipe, container: str, mark: str, lock: str
) -> Quiesce:
    """Return the step that makes a service quiet by its recipe."""
    ask, enter, leave = (
        exec_words(access.docker, container, recipe, each)
        for each in (recipe.ask, recipe.enter, recipe.leave)
    )
    return Quiesce(
        *(access, name.capitalize(), ask, recipe.awake, enter, leave, mark, lock),
        container=container,
        recipe=name,
    )


def stopped(access: HostAccess, container: str, backups: str) -> Quiesce:
    """Return the step that stops a container, with the lock of a folder of backups."""
    mark = f"{backups}/{MARK}{container}"
    return stopped_at(access, container, mark, f"{backups}/.lock")


def stopped_at(access: HostAccess, container: str, mark: str, lock: str) -> Quiesce:
    """Return the same step, with its mark and lock.

    It is left by a restart: that starts a stopped container, and waits for an unfinished stop.
    """
    docker = access.docker
    start, logs = (shlex.join((*docker, word, container)) for word in ("start", "logs"))
    return Quiesce(
        access,
        f"Container {container}",
        ask=(*docker, "inspect", "--type", "container", "--format", STATE_FORM, container),
        awake="true false",
        enter=(*docker, "stop", "--time", str(STOP_S), container),
        leave=(*docker, "restart", "--time", str(STOP_S), container),
        mark=mark,
        lock=lock,
        settle_s=SETTLE_S,
        advice=(
            f"It was stopped for its copy. To start it: `{start}`. To see why it ended: `{logs}`."
        ),
        container=container,
    )
