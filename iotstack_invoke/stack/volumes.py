"""Volumes of Docker: a named one that is made, one without a name that is filled."""

from __future__ import annotations

import re

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import CommandStep, HostStep, StepContext
from ..hosts.base import Command, Host, sh
from ..hosts.json_answers import read_json
from .compose import inspect_all, inspect_volumes, named

FILL_LIMIT_S = 24 * 3600.0
MADE_LABEL = "iotstack_invoke.restore"
"""The label of a volume that a restore made: the folder of what that restore replaced."""
_IN_USE_OR_GONE = re.compile("in use|no such volume", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MakeVolume(CommandStep):
    """Make a named volume, if there is none of its name. Undone: remove it, if nobody uses it.

    One that somebody else made between our look and the step does not bear our mark, and stays.
    """

    journaled_as = "MakeVolume"

    name: str
    labels: tuple[str, ...]
    options: tuple[str, ...] = ()
    """What its driver is told, such as `type=none`."""
    own_label: str = ""
    """The label of what this run makes; '' in a journal of an earlier version, which set none."""

    @property
    def command(self) -> Command:
        """What makes it; of one that is there, made meanwhile, nothing is changed."""
        labels = (*self.labels, *((f"{MADE_LABEL}={self.own_label}",) if self.own_label else ()))
        words = [word for each in labels for word in ("--label", each)]
        words += [word for each in self.options for word in ("--opt", each)]
        return self.access.guarded_docker("volume", "create", *words, self.name)

    def undo(self, host: Host) -> str:
        """Remove it; one that is in use, or gone, or not of this run, is left as it is.

        Return what is to be told of one that somebody else made.
        """
        if self.own_label:
            look = self.access.guarded_docker("volume", "inspect", self.name, timeout_s=120)
            seen = host.run(look.accepting(0, 1))
            if seen.exit_code and not _IN_USE_OR_GONE.search(seen.err):
                raise StepFailed(f"Could not inspect volume {self.name}: {seen.last_line}")
            if not seen.exit_code and self.own_label != _label(seen.out, host.name):
                return f"Volume {self.name} was not removed: another program created it meanwhile."
        removal = self.access.guarded_docker("volume", "rm", self.name)
        told = host.run(removal.accepting(0, 1))
        if told.exit_code and not _IN_USE_OR_GONE.search(told.err):
            raise StepFailed(f"Volume {self.name} could not be removed: {told.last_line}")
        return ""


def _label(told: str, host: str) -> str:
    """Return who made the volume that Docker tells of; '' without such a label."""
    (volume,) = read_json(told, f"`docker volume inspect` on {host}").items(1)
    return volume["Labels"][MADE_LABEL].text("")


@dataclass(frozen=True, slots=True)
class FillVolume(HostStep):
    """Put files into the volume without a name that a new container mounts at a path.

    In the place of what its image put there; of any other volume nothing is changed. It goes with
    its container, so there is nothing to undo.
    """

    container: str
    inside: str
    staged: str

    def commands(self) -> tuple[str, ...]:
        """Return what is copied."""
        return (f"cp -a '{self.staged}' to the volume of {self.container} at {self.inside}",)

    def do(self, context: StepContext) -> None:
        """Copy them; warn where the container has no such volume."""
        host = self.access.host(context)
        found = named(inspect_all(host, self.access.docker), self.container)
        mounts = found.mounts if found else ()
        mount = next((each for each in mounts if each.inside == self.inside), None)
        volumes = inspect_volumes(host, [mount.volume], self.access.docker) if mount else {}
        volume = volumes.get(mount.volume) if mount else None
        if not (volume and volume.anonymous and volume.is_local):
            context.warn(
                f"Data of container {self.container} at {self.inside} is not restored: it has no "
                "anonymous volume there. The data is in the outside part: unpack it by hand."
            )
            return
        script = (
            'find "$2" -mindepth 1 -delete && cp -a --reflink=auto -T -- "$1" "$2" && '
            'sync --file-system "$2"'
        )
        words = sh(script, self.staged, volume.mountpoint)
        fill = self.access.guarded_root(*words, timeout_s=FILL_LIMIT_S)
        host.run(fill, context.log_output)
