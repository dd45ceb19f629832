"""The services of a compose file are brought up in a step, all at once or one by one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ..core.dataclass import dataclass
from ..core.errors import StepFailed, ended
from ..engine.steps import CommandStep, HostAccess, StepContext
from ..hosts.base import ANY_EXIT, Command, Host, Result
from .stop_start import STOP_LIMIT_S
from .up import made_by

PROJECT = "--project-directory"
_SUMMED_UP = re.compile("Encountered errors while bringing up the project")


def files_in(words: tuple[str, ...]) -> tuple[str, tuple[str, ...], str]:
    """Return the folder, the files and the file of variables ('' for none) of a compose command.

    Raises ValueError if the command does not name its folder: those of this package do.
    """
    pairs = list(pairwise(words[words.index(PROJECT) :]))
    files = tuple(value for word, value in pairs if word == "--file")
    return pairs[0][1], files, dict(pairs).get("--env-file", "")


@dataclass(frozen=True, slots=True)
class ComposeUp(CommandStep):
    """Create the containers of a compose file; optionally start them. Undo removes them.

    Empty `services` means all of them: a service that fails on this machine then does not stop the
    others, unless the step is `strict`, or its container is a vital one.
    """

    journaled_as = "ComposeUp"

    compose: tuple[str, ...]
    services: tuple[str, ...]
    start: bool = True
    vital: tuple[str, ...] = ()
    """The containers that must have been created."""
    strict: bool = False
    waited_for: tuple[str, ...] = ()
    """The containers for which the next step reports why they are not up."""

    @property
    def folder(self) -> str:
        """The folder to which the relative paths of its files refer."""
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
        """Return what a journal holds of it: its files, without the compose program."""
        paths = {"folder": self.folder, "files": self.files, "variables": self.variables}
        return {**paths, "services": self.services}

    @classmethod
    def of_earlier(cls, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a step in a journal; older ones held the whole compose command."""
        if "compose" not in told:
            return told
        folder, files, variables = files_in(tuple(told["compose"]))
        paths = {"folder": folder, "files": files, "variables": variables}
        return {**paths, "services": told["services"]}

    @classmethod
    def revived(
        cls,
        access: HostAccess,
        folder: str,
        files: tuple[str, ...],
        variables: str,
        services: tuple[str, ...],
        compose: tuple[str, ...],
    ) -> ComposeUp:
        """Return the step of a journal, with the target's own compose command."""
        more = ("--env-file", variables) if variables else ()
        named = (word for path in files for word in ("--file", path))
        words = (*compose, PROJECT, folder, *more, *named)
        return cls(access, words, services)

    @property
    def command(self) -> Command:
        """The command that brings up all of them."""
        return self._up(self.services)

    def _up(self, services: tuple[str, ...]) -> Command:
        alone = ("--no-deps",) if services else ()
        mode = "--detach" if self.start else "--no-start"
        return self.access.guarded(*self.compose, "up", mode, *alone, *services)

    def do(self, context: StepContext) -> None:
        """Bring them up; all at once, or one by one if that failed."""
        host = self.access.host(context)
        can_be_parted = not (self.services or self.strict)
        command = self.command.accepting(*ANY_EXIT) if can_be_parted else self.command
        told = host.run(command, context.log_output)
        if told.exit_code:
            self._one_by_one(context, host, compose_error(told))

    def _one_by_one(self, context: StepContext, host: Host, failed: str) -> None:
        """Bring up each service by itself, and repeat while that makes progress.

        After a failure compose v2 starts no other service; one may need another's network.
        """
        asked = Command((*self.compose, "config", "--services"))
        waiting = dict.fromkeys(host.run(asked).out.split(), "")
        if not waiting:
            raise StepFailed(f"Compose could not start anything: {failed}")
        before = len(waiting) + 1
        while waiting and len(waiting) < before:
            before = len(waiting)
            for service in tuple(waiting):
                context.status(f"starting {service} alone, because starting all together failed")
                command = self._up((service,)).accepting(*ANY_EXIT)
                told = host.run(command, context.log_output)
                if told.exit_code:
                    waiting[service] = compose_error(told)
                else:
                    del waiting[service]
        made = made_by(host, self.compose, self.access.docker)
        lacking = [name for name in self.vital if name not in made]
        if lacking:
            why = " ".join(f"{name}: {text}" for name, text in waiting.items())
            raise StepFailed(f"Container {', '.join(lacking)} could not be created. {why}")
        for service, why in waiting.items() if self.start else ():
            names = made_by(host, self.compose, self.access.docker, service)
            if not {*names} & {*self.waited_for}:
                context.warn(
                    f"Service {service} is not running: {ended(why)} After fixing it: "
                    f"{shlex.join(self.compose)} up --detach {service}"
                )

    def undo(self, host: Host) -> None:
        """Remove what was created; its containers are removed even if a compose file is gone."""
        words = (
            (*self.compose, "rm", "--force", "--stop", *self.services)
            if self.services
            else (*self.compose, "down")
        )
        command = self.access.guarded(*words, timeout_s=STOP_LIMIT_S)
        told = host.run(command.accepting(*ANY_EXIT))
        left = self._left(host) if told.exit_code else ()
        if left:
            raise StepFailed(f"{', '.join(left)} could not be removed: {compose_error(told)}")

    def _left(self, host: Host) -> tuple[str, ...]:
        """Return its existing containers; raises StepFailed if Docker cannot be queried."""
        try:
            return made_by(host, self.compose, self.access.docker, *self.services)
        except StepFailed:  # compose cannot read its files, or Docker is down
            host.run(Command((*self.access.docker, "ps", "--quiet")))
            return ()


def compose_error(told: Result) -> str:
    """Return why compose failed, in its own words: the last line except summary lines."""
    lines = [line.strip() for line in (*told.out.splitlines(), *told.err.splitlines())]
    telling = [line for line in lines if line and not _SUMMED_UP.search(line)]
    errors = [line for line in telling if "error" in line.lower()] or telling
    return errors[-1] if errors else told.last_line
