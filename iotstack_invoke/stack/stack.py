"""Steps that change a running stack, each with its undo: stop, swap by rename, start.

Every command is under a shared lock of the host (`flock --shared`): one that outlives the
program that sent it is waited for before anything is undone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

from ..core.dataclass import dataclass
from ..core.errors import OldDataGone, StepFailed, ended
from ..core.gzip_streams import reading_words
from ..engine.steps import StepContext
from ..hosts.base import PARTIAL, Command, Host, Result, is_telling
from ..hosts.inspect import ANY_EXIT, which_may_be_there
from ..hosts.json_answers import read_json
from ..hosts.local import LocalHost
from .compose import compose_words, inspect_all, inspect_volumes, inspected, named
from .kept_until import UNTIL_FILE, forget_words
from .staged import remove_words, unmark_words
from .up import made_by, not_up

PROJECT = "--project-directory"
STOP_LIMIT_S = 600.0
START_LIMIT_S = 600.0
GONE_EXIT = 44
"""Of what undoes a swap: what was moved aside is gone. Neither flock(1) nor sudo(8) ends so."""
STOPPING = "stopping "
"""With this begins what is said when containers are stopped."""
STEP_LIMIT_S = 3600.0
_SUMMED_UP = re.compile("Encountered errors while bringing up the project")
_IN_USE_OR_GONE = re.compile("in use|no such volume", re.IGNORECASE)
FILL_LIMIT_S = 24 * 3600.0

MADE_LABEL = "iotstack_invoke.restore"
"""The label of a volume that a restore made: the folder of what that restore replaced."""
RUNNING_FORM = "{{if .State.Running}}{{.Name}}{{end}}"
# Each script takes its paths as "$1", "$2" …; `sync FOLDER` makes a rename in it last (fsync).
# A mv(1) to another file system would copy, and half a copy looks like the whole: refused. So it
# would between two mounts of one file system, which only their numbers in proc_pid_fdinfo(5) tell.
# What root puts aside is looked into by the user as well, whatever the umask: restore/ is private.
RENAME = (
    'umask 022; there() { [ -e "$1" ] || [ -L "$1" ]; }; '
    'mount_of() { grep ^mnt_id: /proc/self/fdinfo/3 3< "$(dirname "$1")"; }; '
    'rename() { mkdir -p "$(dirname "$2")" || return 1; '
    'if [ "$(stat -c %d "$1")" != "$(stat -L -c %d "$(dirname "$2")")" ] || '
    '[ "$(mount_of "$1")" != "$(mount_of "$2")" ]; then '
    'echo "$2 is on another file system than $1" >&2; return 1; fi; mv -T "$1" "$2"; }; '
)
SWAP = (
    f"{RENAME} live=$1 staged=$2 aside=$3; "
    'if there "$live"; then rename "$live" "$aside" || exit 1; '
    'else mkdir -p "$(dirname "$aside")" && : > "$aside.new" || exit 1; fi; '
    'rename "$staged" "$live" && sync "$(dirname "$live")" "$(dirname "$aside")"'
)
# What has been live is never handed back to staging: nobody takes a used item for a fresh one.
# aside there: put it back, whatever lies in its place. The mark beside it: the item is new on
# this host, so it goes. Neither, and not undone yet: what was live is gone, and nothing is done.
UNSWAP = (
    f"{RENAME} live=$1 staged=$2 aside=$3 used=$4; "
    'if there "$aside"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rename "$aside" "$live" || exit 1; '
    'elif there "$aside.new"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rm -f "$aside.new" || exit 1; '
    'elif ! there "$staged" && ! there "$used"; then '
    f"exit {GONE_EXIT}; fi; "
    'sync "$(dirname "$live")"'
)

# Undoes a swap that earlier versions planned below another one: what is aside is a part of what
# that one moved, so its rename failed, and nothing is to be done. An undo of such a version may
# have put that part into the folder that goes: it comes back, and the way is free for the other.
UNSWAP_BELOW = (
    f"{RENAME} live=$1 aside=$3 used=$4 around=$5 used_around=$6; "
    'there "$around" || exit 0; '
    'if ! there "$aside" && there "$live" && there "$used"; then '
    'rename "$live" "$aside" || exit 1; fi; '
    'if there "$aside" && ! there "$live" && there "$used"; then '
    'rename "$used" "$live" || exit 1; fi; '
    '[ ! -d "$used_around" ] || find "$used_around" -depth -type d -empty -delete; '
    'sync "$(dirname "$aside")"'
)

# For each pair of a live path and where it was moved aside to: whether UNSWAP can put it back.
CAN_BE_BACK = (
    f"{RENAME} "
    'while [ $# -gt 1 ]; do live=$1 aside=$2; shift 2; if ! there "$aside"; then '
    'if there "$aside.new"; then echo new; else echo gone; fi; '
    'elif [ -d "$(dirname "$live")" ] && [ "$(mount_of "$live")" != "$(mount_of "$aside")" ]; '
    "then echo apart; else echo good; fi; done"
)

# For each item (live, staged, aside, used) of a version that left no such mark: makes it where the
# item was put in place and nothing was moved aside, as that version's own undo took it. Not where
# one of the folders named first, up to "", is gone: that undo had begun, and its stage with it.
MARK_NEW = (
    f"{RENAME} "
    'while [ -n "$1" ]; do [ -d "$1" ] || exit 0; shift; done; shift; '
    "while [ $# -gt 3 ]; do live=$1 staged=$2 aside=$3 used=$4; shift 4; "
    'if there "$live" && ! there "$staged" && ! there "$aside" && ! there "$used"; then '
    'mkdir -p "$(dirname "$aside")" && : > "$aside.new" || exit 1; fi; done'
)

# What is not there any more by then leaves the mark of something new: else it would look like
# something that was moved aside, and is gone.
MOVE_ASIDE = (
    f'{RENAME} live=$1 aside=$2; if there "$live"; then rename "$live" "$aside" || exit 1; '
    'else mkdir -p "$(dirname "$aside")" && : > "$aside.new" || exit 1; fi; '
    'sync "$(dirname "$live")" "$(dirname "$aside")"'
)
MOVE_BACK = (
    f"{RENAME} live=$1 aside=$2 used=$3; "
    'if there "$aside"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rename "$aside" "$live" || exit 1; '
    'elif there "$aside.new"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rm -f "$aside.new" || exit 1; '
    'elif ! there "$live" && ! there "$used"; then '
    f"exit {GONE_EXIT}; fi; "
    'sync "$(dirname "$live")"'
)

# A plain file in the place of a folder: Docker refuses to mount it, so no container starts on it.
PUT_AWAY = (
    f'{RENAME} live=$1 aside=$2; rename "$live" "$aside" && : > "$live" '
    '&& sync "$(dirname "$live")" "$(dirname "$aside")"'
)
PUT_BACK = (
    f'{RENAME} live=$1 aside=$2 used=$3; if ! there "$aside"; then '
    f'if [ -f "$live" ] && [ ! -L "$live" ]; then exit {GONE_EXIT}; fi; exit 0; fi; '
    'if [ -f "$live" ]; then rm -f "$live"; '
    'elif there "$live"; then rename "$live" "$used"; fi '
    '&& rename "$aside" "$live" && sync "$(dirname "$live")"'
)


def guarded(guard: str, words: tuple[str, ...], limit_s: float = STEP_LIMIT_S) -> Command:
    """Return a command that holds the host's shared lock while it runs."""
    return Command(("flock", "--shared", guard, *words), timeout_s=limit_s)


MOST_LINES = 3
RENAME_AGAIN = (
    "Nothing was removed: what is not under one name is under the other. Mend the cause (a disk "
    "that is full or read-only, something that is mounted on one of them), and run this again."
)
UNDO_AGAIN = (
    "Nothing was removed. Mend the cause (a disk that is full or read-only, something that is "
    "mounted on one of them), and run `inv undo`, which goes on with it."
)


def rename_by(host: Host, command: Command, told: str, advice: str, gone: str = "") -> None:
    """Run what renames; raises StepFailed where it fails: `told`, why, and what to do.

    OldDataGone, with `gone`, where what is to be renamed was removed.
    """
    outcome = host.run(replace(command, accept=ANY_EXIT))
    if gone and outcome.exit_code == GONE_EXIT:
        raise OldDataGone(gone)
    if outcome.exit_code:  # a name in its words may have newlines
        said = [each.strip() for each in outcome.err.splitlines() if is_telling(each)]
        why = " ".join(said[-MOST_LINES:]) or outcome.last_line
        raise StepFailed(f"On {host.name} {told}: {why.rstrip('.')}. {advice}")


def put_back_told(live: str, aside: str, used: str) -> str:
    """Return what was not done where something was not put back."""
    return (
        f"{live} was not put back ({aside} was to be renamed to it, and what has been there since "
        f"to {used})"
    )


def left_told(live: str, aside: str) -> str:
    """Return why something cannot be put back: nobody has what was moved aside."""
    return f"{aside} is gone, so {live} cannot be put back."


def wait_for_orphans(host: Host, guard: str) -> None:
    """Wait until no command of a dead run is left; raises StepFailed where one never ends."""
    words = ("flock", "--exclusive", "--timeout", str(int(STOP_LIMIT_S)), guard, "true")
    try:
        host.run(Command(words, timeout_s=STOP_LIMIT_S + 10))
    except StepFailed as error:
        raise StepFailed(
            f"On {host.name} a command of an earlier run is still at work (it holds {guard}). "
            "Wait for it, and run this again."
        ) from error


def _stop(docker: tuple[str, ...], names: tuple[str, ...], guard: str) -> Command:
    return guarded(guard, (*docker, "stop", "--time", "60", *names), STOP_LIMIT_S)


def _those_there(host: Host, docker: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return ()
    form = ("inspect", "--type", "container", "--format", "{{.Name}}")
    told = inspected(host, (*docker, *form, *names)).split()
    return tuple(name for name in names if f"/{name}" in told)


def _start(docker: tuple[str, ...], names: tuple[str, ...], guard: str) -> Command:
    """Return what starts them: exit 1 where one cannot be, and then the others are started."""
    words = guarded(guard, (*docker, "start", *names)).argv
    return Command(words, frozenset({0, 1}), START_LIMIT_S)


def _compose_words(host: Host, docker: tuple[str, ...]) -> str:
    """Return how compose is called there, for people; its plugin where neither is found."""
    try:
        return shlex.join(compose_words(host, docker))
    except StepFailed:
        return "docker compose"


@dataclass(frozen=True, slots=True)
class StopContainers:
    """Stop containers that run. Undone: start them again, in the order in which they started."""

    journaled_as = "StopContainers"

    host_role: str
    names: tuple[str, ...]
    docker: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),) if self.names else ()

    @property
    def _command(self) -> Command:
        return _stop(self.docker, self.names, self.guard)

    def do(self, context: StepContext) -> None:
        """Stop them, all at once; each has a minute to put its data away."""
        if self.names:
            context.status(f"{STOPPING}{', '.join(self.names)}; each may take a minute")
            context.host(self.host_role).run(self._command)

    def undo(self, host: Host) -> str:
        """Start them; one that Docker itself started after a power cut sees what was swapped.

        One that somebody removed, or that cannot be started any more, keeps no other from being
        started; return what is to be told of it.
        """
        names = _those_there(host, self.docker, self.names)
        told: tuple[str, ...] = ()
        if names:
            host.run(_stop(self.docker, names, self.guard))
            if host.run(_start(self.docker, names, self.guard)).exit_code:
                told = not_up(host, self.docker, names)
        gone = ", ".join(name for name in self.names if name not in names)
        if gone:
            compose = _compose_words(host, self.docker)
            why = (
                f"Not there any more, and so not running as before: {gone} (`docker compose down` "
                f"removes containers). In the folder of the stack, {compose} up -d makes and "
                "starts them."
            )
            told = (*told, why)
        return " ".join(told)


@dataclass(frozen=True, slots=True)
class StartContainers:
    """Start containers that were there before; who waits for them tells which are not up.

    Undone: stop them.
    """

    journaled_as = "StartContainers"

    host_role: str
    names: tuple[str, ...]
    docker: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),) if self.names else ()

    @property
    def _command(self) -> Command:
        return _start(self.docker, self.names, self.guard)

    def do(self, context: StepContext) -> None:
        """Start them in the order of their names."""
        if self.names:
            context.host(self.host_role).run(self._command)

    def undo(self, host: Host) -> None:
        """Stop them; one that is not there any more needs none.

        Raises StepFailed where one runs on: what is put back next would be put under it.
        """
        names = _those_there(host, self.docker, self.names)
        if names:
            host.run(_stop(self.docker, names, self.guard))


def files_in(words: tuple[str, ...]) -> tuple[str, tuple[str, ...], str]:
    """Return the folder, the files and the file of variables that a call of compose names."""
    pairs = list(pairwise(words[words.index(PROJECT) :]))
    files = tuple(value for word, value in pairs if word == "--file")
    return pairs[0][1], files, dict(pairs).get("--env-file", "")


@dataclass(frozen=True, slots=True)
class ComposeUp:
    """Create the containers of a compose file, and start them if told so. Undone: remove them.

    `services` empty means all of them: then one that this machine cannot have keeps no other
    from being brought up, unless it is `strict`, or its container is a vital one.
    """

    journaled_as = "ComposeUp"

    host_role: str
    compose: tuple[str, ...]
    services: tuple[str, ...]
    guard: str
    start: bool = True
    docker: tuple[str, ...] = ()
    vital: tuple[str, ...] = ()
    """The containers that must have been made."""
    strict: bool = False
    waited_for: tuple[str, ...] = ()
    """The containers of which the next step tells why they are not up."""

    @property
    def folder(self) -> str:
        """From which on the relative paths of its files count."""
        return files_in(self.compose)[0]

    @property
    def files(self) -> tuple[str, ...]:
        """Its files."""
        return files_in(self.compose)[1]

    @property
    def variables(self) -> str:
        """The file of its variables, if it is in another folder."""
        return files_in(self.compose)[2]

    def journaled(self) -> Mapping[str, Any]:
        """Return what a journal holds of it: its files, and not how compose is called."""
        paths = {"folder": self.folder, "files": self.files, "variables": self.variables}
        return {"host_role": self.host_role, **paths, "services": self.services}

    @classmethod
    def of_earlier(cls, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the same of a journal that held all words of the call instead."""
        if "compose" not in told:
            return told
        folder, files, variables = files_in(tuple(told["compose"]))
        paths = {"folder": folder, "files": files, "variables": variables}
        return {"host_role": told["host_role"], **paths, "services": told["services"]}

    @classmethod
    def revived(
        cls,
        host_role: str,
        folder: str,
        files: tuple[str, ...],
        variables: str,
        services: tuple[str, ...],
        compose: tuple[str, ...],
        docker: tuple[str, ...],
        guard: str,
    ) -> ComposeUp:
        """Return it as a journal holds it, with the target's own words."""
        more = ("--env-file", variables) if variables else ()
        named = (word for path in files for word in ("--file", path))
        words = (*compose, PROJECT, folder, *more, *named)
        return cls(host_role, words, services, guard, docker=docker)

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command(self.services)),)

    def _command(self, services: tuple[str, ...], *, may_fail: bool = False) -> Command:
        alone = ("--no-deps",) if services else ()
        mode = "--detach" if self.start else "--no-start"
        words = guarded(self.guard, (*self.compose, "up", mode, *alone, *services)).argv
        accept = frozenset(range(256)) if may_fail else frozenset({0})
        return Command(words, accept, STEP_LIMIT_S)

    def do(self, context: StepContext) -> None:
        """Bring them up; all at once, or one by one where that failed."""
        host = context.host(self.host_role)
        can_be_parted = not (self.services or self.strict)
        told = host.run(self._command(self.services, may_fail=can_be_parted), context.log_output)
        if told.exit_code:
            self._one_by_one(context, host, compose_error(told))

    def _one_by_one(self, context: StepContext, host: Host, failed: str) -> None:
        """Bring up each service by itself, again while that gets any further.

        Compose v2 begins no other when one has failed; one may need another's network.
        """
        asked = Command((*self.compose, "config", "--services"))
        waiting = dict.fromkeys(host.run(asked).out.split(), "")
        if not waiting:
            raise StepFailed(f"Compose could not bring up anything: {failed}")
        before = len(waiting) + 1
        while waiting and len(waiting) < before:
            before = len(waiting)
            for service in tuple(waiting):
                context.status(f"bringing up {service} by itself, as all at once failed")
                told = host.run(self._command((service,), may_fail=True), context.log_output)
                if told.exit_code:
                    waiting[service] = compose_error(told)
                else:
                    del waiting[service]
        made = made_by(host, self.compose, self.docker)
        lacking = [name for name in self.vital if name not in made]
        if lacking:
            why = " ".join(f"{name}: {text}" for name, text in waiting.items())
            raise StepFailed(f"Container {', '.join(lacking)} could not be made. {why}")
        for service, why in waiting.items() if self.start else ():
            names = made_by(host, self.compose, self.docker, service)
            if not {*names} & {*self.waited_for}:
                context.warn(
                    f"Service {service} is not up: {ended(why)} When that is mended: "
                    f"{shlex.join(self.compose)} up --detach {service}"
                )

    def undo(self, host: Host) -> None:
        """Remove what was created; a compose file that is gone takes its containers with it."""
        words = (
            (*self.compose, "rm", "--force", "--stop", *self.services)
            if self.services
            else (*self.compose, "down")
        )
        command = guarded(self.guard, words, STOP_LIMIT_S)
        told = host.run(Command(command.argv, frozenset(range(256)), command.timeout_s))
        left = self._left(host) if told.exit_code else ()
        if left:
            raise StepFailed(f"{', '.join(left)} could not be removed: {compose_error(told)}")

    def _left(self, host: Host) -> tuple[str, ...]:
        """Return its containers that are there; raises StepFailed where Docker cannot be asked."""
        try:
            return made_by(host, self.compose, self.docker, *self.services)
        except StepFailed:  # compose cannot read its files, or Docker is away
            host.run(Command((*self.docker, "ps", "--quiet")))
            return ()


def compose_error(told: Result) -> str:
    """Return why compose failed, in its own words: the last line but for those that sum it up."""
    lines = [line.strip() for line in (*told.out.splitlines(), *told.err.splitlines())]
    telling = [line for line in lines if line and not _SUMMED_UP.search(line)]
    errors = [line for line in telling if "error" in line.lower()] or telling
    return errors[-1] if errors else told.last_line


@dataclass(frozen=True, slots=True)
class SwapItem:
    """Put a staged file or folder in the place of a live one, which is moved aside.

    Undone: what was moved aside is put back, and what was live since is moved to `used`. All
    four paths are on one file system.
    """

    journaled_as = "SwapItem"

    host_role: str
    live: str
    staged: str
    aside: str
    used: str
    as_root: tuple[str, ...]
    guard: str
    swap: ClassVar[str] = SWAP
    unswap: ClassVar[str] = UNSWAP
    limit_s: ClassVar[float] = STEP_LIMIT_S
    what: ClassVar[str] = ""
    """What of the live one is swapped, for people."""

    def commands(self) -> tuple[str, ...]:
        """Return the renames as a person would type them."""
        return (
            f"mv -T '{self.live}' '{self.aside}'  # if it is there",
            f"mv -T '{self.staged}' '{self.live}'",
        )

    def _command(self, script: str) -> Command:
        words = ("sh", "-c", script, "sh", self.live, self.staged, self.aside, self.used)
        return guarded(self.guard, (*self.as_root, *words), self.limit_s)

    def do(self, context: StepContext) -> None:
        """Rename twice; between the two the item is missing, never half there."""
        told = (
            f"{self.what}{self.live} was not replaced (it was to be renamed to {self.aside}, and "
            f"{self.staged} to its place)"
        )
        host = context.host(self.host_role)
        rename_by(host, self._command(self.swap), told, RENAME_AGAIN)

    def undo(self, host: Host) -> None:
        """Rename back, from wherever it stopped; raises OldDataGone where nothing is left to."""
        told = f"{self.what}{put_back_told(self.live, self.aside, self.used)}"
        gone = left_told(self.live, self.aside)
        rename_by(host, self._command(self.unswap), told, UNDO_AGAIN, gone)

    def beside(self, others: Iterable[object]) -> SwapItem:
        """Return what undoes it beside others of its journal: one below another is undone with it.

        Only earlier versions planned such.
        """
        for each in others:
            if not (isinstance(each, SwapItem) and self.live.startswith(f"{each.live}/")):
                continue
            if self.aside == each.aside + self.live.removeprefix(each.live):
                return SwapBelow(
                    *(self.host_role, self.live, self.staged, self.aside, self.used),
                    *(self.as_root, self.guard, each.aside, each.used),
                )
        return self


@dataclass(frozen=True, slots=True)
class SwapBelow(SwapItem):
    """A swap below another one, as earlier versions planned it. Undone with that one.

    It is read from a journal of theirs, and never written into one.
    """

    around: str
    used_around: str

    def undo(self, host: Host) -> None:
        """Let the other one be undone: what it moved aside is whole, and its way is free."""
        script = ("sh", "-c", UNSWAP_BELOW, "sh", self.live, self.staged, self.aside, self.used)
        words = (*self.as_root, *script, self.around, self.used_around)
        told = put_back_told(self.live, self.aside, self.used)
        rename_by(host, guarded(self.guard, words, self.limit_s), told, UNDO_AGAIN)


@dataclass(frozen=True, slots=True)
class MoveAside:
    """Move aside what a backup does not hold. Undone: it is put back.

    What came to its place meanwhile is moved to `used`.
    """

    journaled_as = "MoveAside"

    host_role: str
    live: str
    aside: str
    used: str
    as_root: tuple[str, ...]
    guard: str
    move: ClassVar[str] = MOVE_ASIDE
    move_back: ClassVar[str] = MOVE_BACK

    def commands(self) -> tuple[str, ...]:
        """Return the rename as a person would type it."""
        return (f"mv -T '{self.live}' '{self.aside}'",)

    def _command(self, script: str) -> Command:
        words = ("sh", "-c", script, "sh", self.live, self.aside, self.used)
        return guarded(self.guard, (*self.as_root, *words))

    def do(self, context: StepContext) -> None:
        """Rename it; what is gone by now needs nothing."""
        told = f"{self.live} was not moved aside (it was to be renamed to {self.aside})"
        host = context.host(self.host_role)
        rename_by(host, self._command(self.move), told, RENAME_AGAIN)

    def undo(self, host: Host) -> None:
        """Put it back, from wherever it stopped; raises OldDataGone where nothing is left to."""
        told = put_back_told(self.live, self.aside, self.used)
        gone = left_told(self.live, self.aside)
        rename_by(host, self._command(self.move_back), told, UNDO_AGAIN, gone)


@dataclass(frozen=True, slots=True)
class PutAway(MoveAside):
    """Move a folder aside and leave a plain file in its place: no container starts on that.

    Undone: the file is removed and the folder put back; what else lies there moves to `used`.
    """

    journaled_as = "PutAway"

    move: ClassVar[str] = PUT_AWAY
    move_back: ClassVar[str] = PUT_BACK

    def commands(self) -> tuple[str, ...]:
        """Return the commands as a person would type them."""
        return (f"mv -T '{self.live}' '{self.aside}'", f": > '{self.live}'")


@dataclass(frozen=True, slots=True)
class LeaveGone:
    """Let what is live stay: what was moved aside from its place is gone. Undone: that is told.

    It comes into a kept journal in the place of the steps that cannot be undone any more.
    """

    journaled_as = "LeaveGone"

    host_role: str
    live: str
    aside: str

    def commands(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def do(self, context: StepContext) -> None:
        """Do nothing."""

    def undo(self, host: Host) -> str:  # noqa: ARG002 - each step has it
        """Return what is to be told."""
        return f"{left_told(self.live, self.aside)} It is left as it is now."


@dataclass(frozen=True, slots=True)
class CheckStopped:
    """See that nobody started containers that were stopped: they would work on what was moved."""

    host_role: str
    names: tuple[str, ...]
    docker: tuple[str, ...]

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),) if self.names else ()

    @property
    def _command(self) -> Command:
        return Command((*self.docker, "inspect", "--format", RUNNING_FORM, *self.names))

    def do(self, context: StepContext) -> None:
        """Raise StepFailed with those that run."""
        if not self.names:
            return
        told = context.host(self.host_role).run(self._command).out.split()
        running = [name.lstrip("/") for name in told if name.startswith("/")]
        if running:
            raise StepFailed(
                f"Meanwhile somebody started {', '.join(running)} (by hand, or Docker did). What "
                "they write now would be lost. Run this again, and let them be."
            )


@dataclass(frozen=True, slots=True)
class UseStage:
    """Begin to take items out of staging folders. Undone: what is left of them is removed.

    What was taken out of one has been live: a hollow stage must never be taken for a whole one. So
    what says that it is whole goes before anything leaves it.
    """

    journaled_as = "UseStage"

    host_role: str
    folders: tuple[str, ...]
    as_root: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return nothing: what it removes are marks of ours."""
        return ()

    def do(self, context: StepContext) -> None:
        """Let none of the folders count as whole any more."""
        words = unmark_words(self.as_root, *self.folders)
        context.host(self.host_role).run(guarded(self.guard, words))

    def undo(self, host: Host) -> None:
        """Remove the folders."""
        host.run(guarded(self.guard, remove_words(self.as_root, *self.folders)))


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make an empty folder. Undone: remove it, with what came into it.

    `like` names a folder whose owner and mode it gets, where there is one.
    """

    journaled_as = "MakeFolder"

    host_role: str
    path: str
    as_root: tuple[str, ...]
    guard: str
    like: str = ""

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),)

    @property
    def _command(self) -> Command:
        script = (
            'umask 022; mkdir -p "$(dirname "$1")" && mkdir -m 0755 "$1" && if [ -d "$2" ]; then '
            'chown --reference="$2" "$1" && chmod --reference="$2" "$1"; fi'
        )
        words = (*self.as_root, "sh", "-c", script, "sh", self.path, self.like)
        return guarded(self.guard, words)

    def do(self, context: StepContext) -> None:
        """Make it; raises StepFailed where it is there already."""
        context.host(self.host_role).run(self._command)

    def undo(self, host: Host) -> None:
        """Remove it."""
        host.run(guarded(self.guard, (*self.as_root, "rm", "-rf", "--", self.path)))


@dataclass(frozen=True, slots=True)
class CopyFolder:
    """Copy a folder of a stopped server to a new one. Undone: remove the copy."""

    journaled_as = "CopyFolder"

    host_role: str
    source: str
    target: str
    as_root: tuple[str, ...]
    guard: str
    limit_s: float

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),)

    @property
    def _command(self) -> Command:
        script = 'umask 022; mkdir -p "$(dirname "$2")" && cp -a --reflink=auto -T -- "$1" "$2"'
        words = ("sh", "-c", script, "sh", self.source, self.target)
        return guarded(self.guard, (*self.as_root, *words), self.limit_s)

    def do(self, context: StepContext) -> None:
        """Copy it, where the file system can as a clone, and make it last through a power cut."""
        host = context.host(self.host_role)
        self.undo(host)
        host.run(self._command, context.log_output)
        words = (*self.as_root, "sync", "--file-system", self.target)
        host.run(guarded(self.guard, words, self.limit_s))

    def undo(self, host: Host) -> None:
        """Remove it."""
        host.run(guarded(self.guard, (*self.as_root, "rm", "-rf", "--", self.target)))


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Make a link where nothing lies, and the folders on the way. Undone: remove the link."""

    journaled_as = "MakeLink"

    host_role: str
    path: str
    leads_to: str
    as_root: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (f"ln -s '{self.leads_to}' '{self.path}'",)

    def _command(self, script: str) -> Command:
        words = (*self.as_root, "sh", "-c", script, "sh", self.leads_to, self.path)
        return guarded(self.guard, words)

    def do(self, context: StepContext) -> None:
        """Make it; raises StepFailed where something lies there by now."""
        script = 'umask 022; mkdir -p "$(dirname "$2")" && ln -s -T "$1" "$2"'
        context.host(self.host_role).run(self._command(script))

    def undo(self, host: Host) -> None:
        """Remove it, if it is ours."""
        script = '[ "$(readlink "$2")" != "$1" ] || rm -f "$2"'
        host.run(self._command(script))


@dataclass(frozen=True, slots=True)
class MakeVolume:
    """Make a named volume, if there is none of its name. Undone: remove it, if nobody uses it.

    One that somebody else made between our look and the step does not bear our mark, and stays.
    """

    journaled_as = "MakeVolume"

    host_role: str
    name: str
    labels: tuple[str, ...]
    docker: tuple[str, ...]
    guard: str
    options: tuple[str, ...] = ()
    """What its driver is told, such as `type=none`."""
    own_label: str = ""
    """The label of what this run makes; '' in a journal of an earlier version, which set none."""

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),)

    @property
    def _command(self) -> Command:
        labels = (*self.labels, *((f"{MADE_LABEL}={self.own_label}",) if self.own_label else ()))
        words = [word for each in labels for word in ("--label", each)]
        words += [word for each in self.options for word in ("--opt", each)]
        return guarded(self.guard, (*self.docker, "volume", "create", *words, self.name))

    def do(self, context: StepContext) -> None:
        """Make it; of one that is there, made meanwhile, nothing is changed."""
        context.host(self.host_role).run(self._command)

    def undo(self, host: Host) -> str:
        """Remove it; one that is in use, or gone, or not of this run, is left as it is.

        Return what is to be told of one that somebody else made.
        """
        if self.own_label:
            words = (*self.docker, "volume", "inspect", self.name)
            seen = host.run(Command(guarded(self.guard, words).argv, frozenset({0, 1})))
            if seen.exit_code and not _IN_USE_OR_GONE.search(seen.err):
                raise StepFailed(f"Volume {self.name} could not be looked at: {seen.last_line}")
            if not seen.exit_code and self.own_label != _label(seen.out, host.name):
                return f"Volume {self.name} stays: somebody else made it meanwhile."
        command = guarded(self.guard, (*self.docker, "volume", "rm", self.name))
        told = host.run(Command(command.argv, frozenset({0, 1}), command.timeout_s))
        if told.exit_code and not _IN_USE_OR_GONE.search(told.err):
            raise StepFailed(f"Volume {self.name} could not be removed: {told.last_line}")
        return ""


def _label(told: str, host: str) -> str:
    """Return who made the volume that Docker tells of; '' without such a label."""
    (volume,) = read_json(told, f"`docker volume inspect` on {host}").items(1)
    return volume["Labels"][MADE_LABEL].text("")


@dataclass(frozen=True, slots=True)
class FillVolume:
    """Put files into the volume without a name that a new container mounts at a path.

    In the place of what its image put there; of any other volume nothing is changed. It goes with
    its container, so there is nothing to undo.
    """

    host_role: str
    container: str
    inside: str
    staged: str
    docker: tuple[str, ...]
    as_root: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return what is copied."""
        return (f"cp -a '{self.staged}' to the volume of {self.container} at {self.inside}",)

    def do(self, context: StepContext) -> None:
        """Copy them; warn where the container has no such volume."""
        host = context.host(self.host_role)
        found = named(inspect_all(host, self.docker), self.container)
        mounts = found.mounts if found else ()
        mount = next((each for each in mounts if each.inside == self.inside), None)
        volumes = inspect_volumes(host, [mount.volume], self.docker) if mount else {}
        volume = volumes.get(mount.volume) if mount else None
        if not (volume and volume.anonymous and volume.is_local):
            context.warn(
                f"What container {self.container} kept at {self.inside} is not restored: it has "
                "no volume without a name there. It is in the outside part: unpack it by hand."
            )
            return
        script = (
            'find "$2" -mindepth 1 -delete && cp -a --reflink=auto -T -- "$1" "$2" && '
            'sync --file-system "$2"'
        )
        words = ("sh", "-c", script, "sh", self.staged, volume.mountpoint)
        host.run(guarded(self.guard, (*self.as_root, *words), FILL_LIMIT_S), context.log_output)


@dataclass(frozen=True, slots=True)
class MakeAside:
    """Make the folder that what is replaced is moved to. Undone: remove it where it is empty.

    Never more than empty folders: it may hold the only copy of something.
    """

    journaled_as = "MakeAside"

    host_role: str
    path: str
    as_root: tuple[str, ...]
    guard: str

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),)

    @property
    def _command(self) -> Command:
        return guarded(self.guard, ("mkdir", "-m", "0700", "--", self.path))

    def do(self, context: StepContext) -> None:
        """Make it, as the user's own: the journal becomes a file of it."""
        context.host(self.host_role).run(self._command)

    def undo(self, host: Host) -> None:
        """Remove its empty folders, and before them the note how long it was to stay.

        It goes last of all that is undone, and stays beside whatever else is left.
        """
        note = f"{self.path}/{UNTIL_FILE}"
        if which_may_be_there(host, [note, note + PARTIAL], self.as_root):  # a run of root made it
            host.run(guarded(self.guard, (*self.as_root, *forget_words(self.path))))
        words = ("find", self.path, "-depth", "-type", "d", "-empty", "-delete")
        command = guarded(self.guard, (*self.as_root, *words))
        host.run(Command(command.argv, frozenset({0, 1}), command.timeout_s))


@dataclass(frozen=True, slots=True)
class Unpack:
    """Unpack an archive with GNU tar into a new folder of mode 0700. Undone: remove it.

    One archive, one new folder: two archives in one folder can lead each other outside.
    """

    journaled_as = "Unpack"

    host_role: str
    archive: str
    folder: str
    as_root: tuple[str, ...]
    guard: str
    members: tuple[str, ...] = ()
    """What of it is unpacked; all, if nothing is named."""
    left_out: tuple[str, ...] = ()
    scanned: bool = False
    """No member is there twice: a folder may come behind files that lie in it."""

    def commands(self) -> tuple[str, ...]:
        """Return the commands."""
        return tuple(map(str, self._commands()))

    def _commands(self, *, here: bool = False) -> tuple[Command, ...]:
        tar = (
            *("tar", "--extract", f"--file={self.archive}", f"--directory={self.folder}"),
            *("--numeric-owner", "--same-owner", "--preserve-permissions"),
            *("--xattrs", "--xattrs-include=*", "--acls"),
            *(() if self.scanned else ("--keep-old-files",)),
        )
        unzip = reading_words(self.archive, here=here)
        chosen = (*(f"--exclude={each}" for each in self.left_out), *self.members)
        return (
            guarded(self.guard, (*self.as_root, "mkdir", "-m", "0700", "--", self.folder)),
            guarded(self.guard, (*self.as_root, *tar, *unzip, "--anchored", *chosen), 24 * 3600),
            guarded(self.guard, (*self.as_root, "sync", "--file-system", self.folder)),
        )

    def do(self, context: StepContext) -> None:
        """Unpack it, and make it last through a power cut."""
        host = context.host(self.host_role)
        self.undo(host)
        for command in self._commands(here=isinstance(host, LocalHost)):
            host.run(command, context.log_output)

    def undo(self, host: Host) -> None:
        """Remove the folder."""
        host.run(guarded(self.guard, (*self.as_root, "rm", "-rf", "--", self.folder)))
