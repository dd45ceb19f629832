"""The places of the settings' vaults, opened when they are first used.

A vault that does not answer fails only the jobs that need it, and each of them tries anew.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from ..errors import Unreachable
from ..hosts import LocalHost
from ..settings import Vault
from ..steps import Place, Received
from .pace import Pace


def vault_place(vault: Vault) -> Place:
    """Return the place of a vault; using it raises Unreachable where it does not answer."""
    pace = Pace(vault.limit_rate) if vault.limit_rate else None
    return cast("Place", _Lazy(vault.name, vault.folder, lambda: _open(vault), pace))


def _open(vault: Vault) -> Place:
    if vault.ssh is None:
        if not os.path.isdir(vault.folder):
            raise Unreachable(
                f"The folder of vault '{vault.name}' is not there: {vault.folder}. Is the drive "
                "mounted? The folder is never made by us: it might lie beneath a mount point."
            )
        return LocalHost(vault.folder, vault.name)
    from ..remote import open_place  # Fabric takes a fifth of a second to import

    place = open_place(vault.ssh, vault.folder, vault.name)
    found = place.look([vault.folder]).get(vault.folder)
    if found is None or not found.is_folder:
        place.close()
        raise Unreachable(
            f"Vault '{vault.name}': {vault.ssh.host} has no folder {vault.folder}. Make it there, "
            f"for example with `ssh {vault.ssh.host} mkdir -p {vault.folder}`."
        )
    return place


class _Lazy:
    """Opens a place when something of it is first used, and again if that failed."""

    def __init__(
        self, name: str, root: str, opener: Callable[[], Place], pace: Pace | None
    ) -> None:
        self.name = name
        self.root = root
        self._opener = opener
        self._pace = pace
        self._place: Place | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened(), name)

    def _opened(self) -> Place:
        with self._lock:
            if self._place is None:
                self._place = self._opener()
            return self._place

    def receive(self, path: str, source: IO[bytes], modified_s: float, start: int = 0) -> Received:
        """Write a stream there, no faster than the vault's limit."""
        paced = self._pace.stream(source) if self._pace else source
        return self._opened().receive(path, paced, modified_s, start)

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes, no faster than the vault's limit."""
        with self._opened().read(path, start) as stream:
            yield self._pace.stream(stream) if self._pace else stream

    def close(self) -> None:
        """Close what was opened."""
        if self._place is not None:
            self._place.close()
