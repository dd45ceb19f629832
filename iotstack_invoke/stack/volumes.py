"""Docker volumes: creating a named one, filling an anonymous one."""

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
"""The label of a volume that a restore created: the folder of what that restore replaced."""
_IN_USE_OR_GONE = re.compile("in use|no such volume", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MakeVolume(CommandStep):
    """Make a named volume, unless it exists. Undo removes it, unless it is in use.

    A volume that another program created since the first check has no label of ours, and is kept.
    """

    journaled_as = "MakeVolume"

    name: str
    labels: tuple[str, ...]
    options: tuple[str, ...] = ()
    """The driver options, such as `type=none`."""
    own_label: str = ""
    """The label of what this run creates; '' in journals of earlier versions, which set none."""

    @property
    def command(self) -> Command:
        """The command that creates it; an existing volume is not changed."""
        labels = (*self.labels, *((f"{MADE_LABEL}={self.own_label}",) if self.own_label else ()))
        words = [word for each in labels for word in ("--label", each)]
        words += [word for each in self.options for word in ("--opt", each)]
        return self.access.guarded_docker("volume", "create", *words, self.name)

    def undo(self, host: Host) -> str:
        """Remove it; keep one that is in use, or is not of this run.

        Returns a message about one that another program created.
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
    """Return who created a volume, by Docker's answer; '' without such a label."""
    (volume,) = read_json(told, f"`docker volume inspect` on {host}").items(1)
    return volume["Labels"][MADE_LABEL].text("")


@dataclass(frozen=True, slots=True)
class FillVolume(HostStep):
    """Put files into the anonymous volume that a new container mounts at a path.

    They replace what its image put there; any other volume is not changed. The volume is removed
    with its container, so there is nothing to undo.
    """

    container: str
    inside: str
    staged: str

    def commands(self) -> tuple[str, ...]:
        """Return the copy command."""
        return (f"cp -a '{self.staged}' to the volume of {self.container} at {self.inside}",)

    def do(self, context: StepContext) -> None:
        """Copy them; warn if the container has no such volume."""
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
