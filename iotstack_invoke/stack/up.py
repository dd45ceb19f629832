"""Which containers are up, and why others are not, in Docker's own words.

Missing hardware, such as a stick for Zigbee, keeps one container down: the others are still waited
for and counted. Not for: which ones may stay down, which the plan defines.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import HostStep, StepContext
from ..hosts.base import Command, Host
from ..hosts.json_answers import JsonAnswer, read_json
from .compose import inspected

HEALTH_LIMIT_S = 180.0
UNSTEADY_LIMIT_S = 10.0
"""How long to wait for a container that did not stay up before either."""
SETTLE_S = 3.0
"""How long each must have been up: a wrong setting ends a program a moment after its start."""
MISSING = "does not exist"
STATE_FORM = "{{.Name}} {{json .State}}"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The state of a container, from `docker inspect`."""

    status: str
    started: str = ""
    health: str = ""
    error: str = ""
    """Why it could not be started."""
    exit_code: int = 0
    out_of_memory: bool = False

    @property
    def is_up(self) -> bool:
        """Whether it runs; a paused one does."""
        return self.status in ("running", "paused")

    @property
    def is_restarting(self) -> bool:
        """Whether it has ended and Docker restarts it."""
        return self.status == "restarting"

    @property
    def why(self) -> str:
        """Why it is not up, as the rest of a sentence about it."""
        if self.error:
            return f"could not be started: {self.error}"
        ended = f"it ended with exit {self.exit_code}"
        if self.out_of_memory:
            ended += ", out of memory"
        if self.is_restarting:
            return f"keeps stopping: {ended}, and Docker keeps restarting it"
        if self.status == "created":
            return "was not started"
        return "does not keep running" if self.is_up else f"did not keep running: {ended}"


def read_states(
    host: Host, docker: tuple[str, ...], names: Iterable[str]
) -> dict[str, ContainerState]:
    """Return the states of containers, in one round trip; a missing one has no entry.

    Raises StepFailed if Docker does not answer.
    """
    wanted = tuple(names)
    if not wanted:
        return {}
    found = {}
    for line in inspected(host, _state_words(docker, wanted)).splitlines():
        name, _, state = line.lstrip("/").partition(" ")
        found[name] = _read_state(read_json(state, f"`docker inspect` on {host.name}"))
    return found


def _state_words(docker: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    return (*docker, "inspect", "--type", "container", "--format", STATE_FORM, *names)


def _read_state(told: JsonAnswer) -> ContainerState:
    return ContainerState(
        status=told["Status"].text(),
        started=told["StartedAt"].text(""),
        health=told["Health"]["Status"].text(""),
        error=" ".join(told["Error"].text("").split()),
        exit_code=told["ExitCode"].number(0),
        out_of_memory=told["OOMKilled"].flag(default=False),
    )


def not_up(host: Host, docker: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return, one sentence each, which containers do not run and are not starting; and why."""
    states = read_states(host, docker, names)
    return tuple(
        f"Container {name} {states[name].why}."
        for name in names
        if name in states and not (states[name].is_up or states[name].is_restarting)
    )


@dataclass(frozen=True, slots=True)
class WaitForContainers(HostStep):
    """Wait until containers run, stay up, and are healthy if they have a health check.

    One that does not is a warning, and the others are waited for; for `vital` ones, and for all if
    `strict`, it is a failure.
    """

    names: tuple[str, ...]
    compose: tuple[str, ...] = ()
    """If given, only the containers of this project count."""
    vital: tuple[str, ...] = ()
    unsteady: tuple[str, ...] = ()
    """Those that did not stay up before either."""
    strict: bool = False
    sick: tuple[str, ...] = ()
    """Those whose health check failed before, too: they need not become healthy."""

    def commands(self) -> tuple[str, ...]:
        """Return the command that is repeated."""
        return (str(Command(_state_words(self.access.docker, self.names))),) if self.names else ()

    def _present(self, host: Host) -> tuple[str, ...]:
        if not self.compose or not self.names:
            return self.names
        found = made_by(host, self.compose, self.access.docker)
        return tuple(name for name in self.names if name in found)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed for a vital one that does not come up, warn for any other."""
        host = self.access.host(context)
        look = _UptimeScan(self, self._present(host))
        while True:
            waiting = look.at(read_states(host, self.access.docker, look.names))
            failed = [f"Container {n} {why}." for n, why in look.down.items() if self._must(n)]
            if failed:
                raise StepFailed(" ".join(failed))
            if not waiting:
                break
            limit = f"up to {HEALTH_LIMIT_S:g} s"
            context.status(f"waiting, {limit}, for {'; '.join(waiting)}")
            time.sleep(1)
        for name, why in look.down.items():
            before = ", as before the restore" if name in self.unsteady else ""
            fix = "docker compose up -d" if why == MISSING else f"docker start {name}"
            context.warn(f"Container {name} {why}{before}. After fixing it: {fix}")
        if look.sick:
            sick = ", ".join(look.sick)
            context.warn(f"Running, but not healthy after {HEALTH_LIMIT_S:g} s: {sick}.")

    def _must(self, name: str) -> bool:
        return self.strict or name in self.vital


class _UptimeScan:
    """The results of repeated checks: how long each container is up, and which do not come up."""

    def __init__(self, wait: WaitForContainers, names: tuple[str, ...]) -> None:
        self.wait = wait
        self.names = names
        self.down: dict[str, str] = {}
        """Those that are no longer waited for, and why."""
        self.sick: list[str] = []
        self._began_s = time.monotonic()
        self._up: dict[str, tuple[str, float]] = {}
        """The start time of each, from Docker, and when we first saw it."""
        self._again: set[str] = set()
        """Those that were started more than once."""

    def at(self, states: Mapping[str, ContainerState]) -> list[str]:
        """Record the present states, and return what is still waited for."""
        waiting = []
        now_s = time.monotonic()
        is_over = now_s - self._began_s > HEALTH_LIMIT_S
        self.sick = []
        for name in (each for each in self.names if each not in self.down):
            state = states.get(name)
            if state is None:
                self.down[name] = MISSING
            elif not state.is_up and not state.is_restarting:
                self.down[name] = state.why
            elif hope := self._hope(name, state, now_s):
                if is_over and state.is_up and name not in self._again:
                    self.sick.append(name)
                elif is_over or self._is_given_up(name, now_s):
                    self.down[name] = state.why
                else:
                    waiting.append(f"{name} ({hope})")
        return waiting

    def _hope(self, name: str, state: ContainerState, now_s: float) -> str:
        """Return what a container is waited for; '' if it has been up long enough."""
        if state.is_restarting:
            self._again.add(name)
            return "Docker restarts it"
        started, since_s = self._up.get(name, (state.started, now_s))
        if started != state.started:
            self._again.add(name)
            since_s = now_s
        self._up[name] = (state.started, since_s)
        if now_s - since_s < SETTLE_S:
            return "just started"
        if state.health in _HEALTHY or name in self.wait.sick:
            return ""
        return f"its health check reports {state.health}"

    def _is_given_up(self, name: str, now_s: float) -> bool:
        long_ago = now_s - self._began_s > UNSTEADY_LIMIT_S
        return long_ago and name in self._again and name in self.wait.unsteady


_HEALTHY = ("", "healthy", "none")


def made_by(
    host: Host, compose: tuple[str, ...], docker: tuple[str, ...], *services: str
) -> tuple[str, ...]:
    """Return the container names of a project, or of services of it; running or not."""
    ids = host.run(Command((*compose, "ps", "--all", "--quiet", *services))).out.split()
    words = (*docker, "inspect", "--type", "container", "--format", "{{.Name}}", *ids)
    told = inspected(host, words).split() if ids else []
    return tuple(name.lstrip("/") for name in told)
