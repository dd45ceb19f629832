"""A secret of hosts.toml: a text, in a file, or printed by a program. It is never shown."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ..core.dataclass import dataclass
from ..core.errors import StepFailed, ended
from ..hosts.local import opened, within

LIMIT_S = 10.0
"""How long a secret may take: a password manager that is locked asks forever."""
MOST_CHARACTERS = 10_000
"""Of a secret."""
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The variable with the folder of systemd's credentials: systemd.exec(5), LoadCredential=."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret comes from; nothing of it is read before it is used."""

    name: str = ""
    """Its table and key, for messages."""
    text: str = field(default="", repr=False)
    file: str = ""
    command: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.file or self.command)

    def read(self) -> str:
        """Return the secret, "" if none is set; raises StepFailed, which does not quote it."""
        if self.command:
            return self._printed()
        if not self.file:
            return self.text
        path = self._path()
        return within(LIMIT_S, f"{self.name}: {path}", lambda: self._first_line(path))

    def _first_line(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", opener=opened) as stream:
                return self._checked(stream.readline(MOST_CHARACTERS).strip(), path)
        except UnicodeDecodeError:
            raise StepFailed(f"{self.name}: {path} is not a text.") from None
        except OSError as error:
            raise StepFailed(
                f"{self.name}: cannot read {path}: {ended(error.strerror)}"
            ) from error

    def _path(self) -> str:
        folder = os.environ.get(CREDENTIALS, "")
        if "/" not in self.file and not folder:
            raise StepFailed(
                f"{self.name}: its file is a credential of systemd, and this run has none. Give a "
                "path that begins with / or ~ instead."
            )
        return os.path.join(folder, os.path.expanduser(self.file))

    def _printed(self) -> str:
        program = self.command[0]
        try:
            done = subprocess.run(
                [os.path.expanduser(program), *self.command[1:]],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it may quote the secret
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            raise StepFailed(f"{self.name}: {program} did not end within {LIMIT_S:g} s.") from None
        except OSError as error:
            raise StepFailed(
                f"{self.name}: cannot run {program}: {ended(error.strerror)}"
            ) from error
        if done.returncode:
            raise StepFailed(f"{self.name}: {program} ended with exit code {done.returncode}.")
        first = done.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
        return self._checked(first, f"the output of {program}")

    def _checked(self, text: str, where: str) -> str:
        if not text:
            raise StepFailed(f"{self.name}: the first line of {where} is empty.")
        return text


def read_secret(entry: Mapping[str, Any], name: str, table: str) -> Secret:
    """Return the secret of a valid table whose keys are `name`, `name_file` or `name_command`."""
    return Secret(
        f"{table}: {name}",
        entry.get(name, ""),
        entry.get(f"{name}_file", ""),
        tuple(entry.get(f"{name}_command", ())),
    )
