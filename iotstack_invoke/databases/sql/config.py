"""PostgreSQL's own settings, which are among its data: kept beside its dump, compared when loaded.

No dump holds them, and a new server has those of its image. Users put them back by hand: settings
for one version or machine may keep another from starting.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostStep, StepContext
from ...hosts.base import Command, Host
from .servers import ENGINES, SqlServer, run_in

CONFIG = "config"
"""The folder beside a dump that holds the settings."""


def config_of(host: Host, server: SqlServer, docker: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Return each settings file of a running server, its name and its text.

    Raises StepFailed if one cannot be read.
    """
    for name in ENGINES[server.engine].config:
        told = host.run(run_in(docker, server, CONFIG, name))
        if told.exit_code:
            raise StepFailed(f"Could not read {name} of {server.title}: {told.last_line}")
        yield name, told.out


@dataclass(frozen=True, slots=True)
class CompareConfig(HostStep):
    """Warn if a new server has other settings than the dumped one."""

    alone: SqlServer
    container: str
    """The server whose dump it loaded."""
    dump: str
    """The dump on the host."""

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        names = ", ".join(ENGINES[self.alone.engine].config)
        return (f"compare {names} with those of '{self._folder}'",)

    @property
    def _folder(self) -> str:
        return posixpath.join(posixpath.dirname(self.dump), CONFIG)

    def do(self, context: StepContext) -> None:
        """Compare them; a part of IOTstackBackup has no settings."""
        host = self.access.host(context)
        differing = []
        for name, here in config_of(host, self.alone, self.access.docker):
            words = (*self.access.as_root, "cat", "--", f"{self._folder}/{name}")
            told = host.run(Command(words).accepting(0, 1))
            if told.exit_code == 0 and settings_in(told.out) != settings_in(here):
                differing.append(name)
        if differing:
            inside = posixpath.join(
                *([] if self.container == self.alone.engine else [self.container]), CONFIG
            )
            context.warn(
                f"{ENGINES[self.alone.engine].title} in container {self.container} has the "
                f"settings of its image. The backup's settings differ in {', '.join(differing)}: "
                f"they are in {inside} of its part. Compare, and copy what you need into its "
                "data folder."
            )


def settings_in(text: str) -> list[str]:
    """Return the lines of a settings file without comments and blank lines."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [" ".join(words) for words in lines if words]
