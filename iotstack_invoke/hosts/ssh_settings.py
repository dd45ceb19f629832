"""How another machine is reached over SSH, as hosts.toml says it."""

from __future__ import annotations

from ..core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Ssh:
    """How to log in to another machine; what is empty comes from the ssh configuration."""

    host: str
    user: str = ""
    port: int = 0
    key: str = ""
    config: str = ""
    known_hosts: str = ""

    def called(self, name: str) -> str:
        """Return how a machine is told of: its name, with its address where that is another."""
        return name if name == self.host else f"{name} ({self.host})"
