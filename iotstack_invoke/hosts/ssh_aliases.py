"""The names that a user gave to other machines in the configuration of ssh."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shlex

MOST_INCLUDES = 16
"""How deep files may include others: readconf.h, READCONF_MAX_DEPTH."""
_LINE = re.compile(r"\s*(host|include)(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)


def ssh_aliases(folder: str = "") -> tuple[str, ...]:
    """Return the names after `Host` in a user's configuration, in order; patterns are left out.

    `folder`: that of the configuration; without it, the one that ssh reads, which is in the home
    of the user database. A file that cannot be read has none.
    """
    folder = folder or f"{pwd.getpwuid(os.geteuid()).pw_dir}/.ssh"
    return tuple(dict.fromkeys(_names(f"{folder}/config", folder, 0)))


def _names(file: str, folder: str, depth: int) -> list[str]:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            found = [_LINE.fullmatch(line.rstrip("\r\n")) for line in stream]
    except OSError:
        return []
    names = []
    for line in filter(None, found):
        words = _words(line[2])
        if line[1].lower() == "host":
            names += [each for each in words if not set("*?!") & {*each}]
        elif depth < MOST_INCLUDES:
            paths = (os.path.join(folder, os.path.expanduser(each)) for each in words)
            names += [
                name
                for path in paths
                for each in sorted(glob.glob(path))
                for name in _names(each, folder, depth + 1)
            ]
    return names


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # a quote that is not closed, which ssh refuses
        return []
