"""The places of the settings' vaults, opened when they are first used.

A vault that does not answer fails only the jobs that need it, and each of them tries anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from ..errors import Unreachable
from ..settings import Vault
from ..steps import Place
from .folder import open_folder


def vault_place(vault: Vault) -> Place:
    """Return the place of a vault; using it raises Unreachable where it does not answer."""
    return cast("Place", _Lazy(vault.name, vault.folder, lambda: _open(vault)))


def _open(vault: Vault) -> Place:
    if vault.remote:
        from .rclone import open_rclone

        return open_rclone(vault.folder, vault.name)
    if vault.ssh is None:
        return open_folder(vault)
    from ..remote import open_place  # Fabric takes a fifth of a second to import

    place = open_place(vault.ssh, vault.folder, vault.name)
    inside = f"{vault.folder}/."  # so a link to a folder is one
    found = place.look([inside]).get(inside)
    if found is None or not found.is_folder:
        place.close()
        raise Unreachable(
            f"Vault '{vault.name}': {vault.ssh.host} has no folder {vault.folder}. Make it there, "
            f"for example with `ssh {vault.ssh.host} mkdir -p {vault.folder}`."
        )
    return place


class _Lazy:
    """Opens a place when something of it is first used, and again if that failed."""

    def __init__(self, name: str, root: str, opener: Callable[[], Place]) -> None:
        self.name = name
        self.root = root
        self._opener = opener
        self._place: Place | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._place is None:
                self._place = self._opener()
            return getattr(self._place, name)

    def close(self) -> None:
        """Close what was opened."""
        if self._place is not None:
            self._place.close()
