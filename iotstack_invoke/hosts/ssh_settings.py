"""How another machine is reached over SSH, as set in hosts.toml."""

from __future__ import annotations

from ..core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Ssh:
    """How to log in to another machine; empty fields come from the ssh configuration."""

    host: str
    user: str = ""
    port: int = 0
    key: str = ""
    config: str = ""
    known_hosts: str = ""

    def called(self, name: str) -> str:
        """Return the machine's name for messages, with its address if that differs."""
        return name if name == self.host else f"{name} ({self.host})"
