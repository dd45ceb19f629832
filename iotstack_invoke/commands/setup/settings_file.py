"""The settings file that `init` changes: which one it is, and how it is replaced."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...core.dataclass import dataclass
from ...core.errors import Refused, StepFailed
from ...core.toml_text import read_toml
from ...hosts.base import PARTIAL
from ...hosts.local import LocalHost
from ...reporting.report import as_called
from ...settings.edit import NEW_FILE, SCHEMA_FILE, SCHEMA_LINE
from ...settings.model import Settings, places_to_look, read_settings
from ...settings.schema import schema

NOT_OWNER = ~(stat.S_IRWXG | stat.S_IRWXO)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file, which need not exist, and what it held when it was read."""

    path: str
    content: bytes | None
    """None if there is no file."""
    begin: str = ""
    """The text that a new file begins with, in place of the usual one."""

    @property
    def text(self) -> str:
        """The text with plain line ends; of a new file, its beginning."""
        if self.content is None:
            return self.begin or as_called(NEW_FILE)
        return self.content.decode("utf-8-sig").replace("\r\n", "\n")

    @property
    def has_answers(self) -> bool:
        """Whether it says something already, or begins as a copy of a file that does."""
        return self.content is not None or bool(self.begin)

    @property
    def parsed(self) -> dict[str, Any]:
        """What the text says."""
        return read_toml(self.text)

    def replace_by(self, text: str, *, has_secret: bool) -> None:
        """Replace the file atomically, with the owner, mode and line ends that it has.

        A new one, and one with a secret, is readable by its owner alone. Raises Refused if
        another program changed it meanwhile, StepFailed if it cannot be written: then the file
        is unchanged.
        """
        path, host = os.path.realpath(self.path), LocalHost("/")
        if _content(self.path) != self.content:
            raise Refused(f"{self.path} was changed meanwhile. Nothing was written.")
        _make_folders(host, os.path.dirname(path))
        partial = f"{path}{PARTIAL}"
        try:
            with host.create(partial) as stream:
                stream.write(self._encoded(text))
            self._take_over(partial, path, has_secret=has_secret)
            host.rename(partial, path)
        except BaseException:
            host.remove([partial])
            raise
        if SCHEMA_LINE in text:
            with contextlib.suppress(StepFailed, OSError):  # it is a help for editors alone
                _write_schema(host, os.path.dirname(path))

    def _encoded(self, text: str) -> bytes:
        """Return the bytes of a text: with Windows' mark and line ends, if the file has them."""
        old = self.content or b""
        if b"\r\n" in old and old.count(b"\n") == old.count(b"\r\n"):
            text = text.replace("\n", "\r\n")
        mark = codecs.BOM_UTF8 if old.startswith(codecs.BOM_UTF8) else b""
        return mark + text.encode()

    def _take_over(self, partial: str, path: str, *, has_secret: bool) -> None:
        """Give a new file the mode and owner of the old one."""
        if self.content is None:
            return
        old = os.stat(path)
        mode = stat.S_IMODE(old.st_mode)
        os.chmod(partial, mode & NOT_OWNER if has_secret else mode)
        with contextlib.suppress(PermissionError):  # another user's, in a folder of ours
            os.chown(partial, old.st_uid, old.st_gid)


def settings_file(settings: Settings, named: str, environment: Mapping[str, str]) -> SettingsFile:
    """Return the file that is read, or would be: `named` by --settings, or in its usual place.

    The file of a checkout is not changed. If it says more than the defaults, a new file begins as
    a copy of it.
    """
    places = places_to_look(environment)
    path = os.path.expanduser(named or (settings.file if settings.file in places else places[0]))
    content = _content(path)
    of_checkout = settings.file not in ("", path)
    if content is None and of_checkout and replace(settings, file="") != read_settings({}, ""):
        with open(settings.file, encoding="utf-8-sig") as stream:
            return SettingsFile(path, None, stream.read())
    return SettingsFile(path, content)


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _make_folders(host: LocalHost, folder: str) -> None:
    """Make a folder and those above it, each for its owner alone."""
    if not os.path.isdir(folder):
        _make_folders(host, os.path.dirname(folder))
        host.mkdir(folder)


def _write_schema(host: LocalHost, folder: str) -> None:
    """Write the schema for editors beside the settings, unless it is there."""
    path, content = f"{folder}/{SCHEMA_FILE}", json.dumps(schema(), indent=2, ensure_ascii=False)
    if _content(path) == f"{content}\n".encode():
        return
    host.replace(path, f"{content}\n".encode())
