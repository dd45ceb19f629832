"""A copy of hosts.toml from the last run that could use it.

From it, people are told that the file has mistakes, or that it is gone. It has no other use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace

from ..core.errors import IotstackError, SettingsError
from ..hosts.local import LocalHost, opened, state_folder
from ..hosts.trust import believed
from ..settings.model import Settings, load_settings, places_to_look
from .state import make_state_folder

MOST_BYTES = 1 << 20


class KeptSettings:
    """The copy of one settings file. It may hold secrets, and has mode 0600."""

    def __init__(self, file: str) -> None:
        self._file = os.path.abspath(os.path.expanduser(file))
        mark = hashlib.sha256(os.fsencode(self._file)).hexdigest()[:8]
        self.path = f"{state_folder()}/settings/{mark}-{os.path.basename(self._file)}"
        self._host = LocalHost(os.path.dirname(self.path))

    def exists(self) -> bool:
        """Return whether there is a copy."""
        return os.path.lexists(self.path)

    def read(self) -> Settings | None:
        """Return the settings in the copy; None without one, or if others may have written it."""
        with contextlib.suppress(SettingsError):
            if self.exists() and believed(self._host, self.path):
                return replace(load_settings(self.path), file=self._file)
        return None

    def keep(self) -> None:
        """Let the copy be the file as it is now; raises StepFailed, and the earlier copy stays."""
        content = _content(self._file)
        if content and content != _content(self.path):
            make_state_folder(os.path.dirname(self.path))
            self._host.replace(self.path, content)

    def forget(self) -> None:
        """Remove the copy; raises StepFailed."""
        self._host.remove([self.path])


def keep_settings(settings: Settings) -> None:
    """Keep a copy of the file for the day when it has mistakes, if it says who is to be told."""
    if not settings.file:
        return
    kept = KeptSettings(settings.file)
    with contextlib.suppress(IotstackError):  # a full disk: the earlier copy stays
        if settings.monitoring:
            kept.keep()
        elif kept.exists():
            kept.forget()


def refuse_if_gone(settings: Settings, checkout: str) -> None:
    """Raise SettingsError if the file of an earlier run is gone, and others took its place."""
    for file in places_to_look(os.environ, checkout):
        if file == settings.file:
            return
        kept = KeptSettings(file)
        if kept.exists():
            raise SettingsError(
                f"{file} is gone: an earlier run used it. Put it back: {kept.path} is a copy of "
                "it. To go on without it, remove that copy.",
                file=file,
            )


def _content(path: str) -> bytes:
    """Return what is in a file; b"" without one, or if it is too large for settings."""
    with contextlib.suppress(OSError), open(path, "rb", opener=opened) as stream:
        content = stream.read(MOST_BYTES + 1)
        return content if len(content) <= MOST_BYTES else b""
    return b""
