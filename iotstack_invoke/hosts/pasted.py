"""Commands for users to paste: each word quoted for every shell that reads it.

Unquoted, a path with a space made two folders. Not for: commands that this program runs.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

from .ssh_settings import Ssh

_READ_IN_DOUBLE_QUOTES = re.compile(r'["$`\\!]')


def host_flag(name: str) -> str:
    """Return the flag that selects a host, after a space; '' for this machine."""
    return f" --host {shlex.quote(name)}" if name else ""


def logging_in(ssh: Ssh) -> tuple[str, ...]:
    """Return the arguments after `ssh` or `ssh-copy-id` that log in as hosts.toml says."""
    from .ssh_config import flags  # imports Paramiko, loaded already for any login

    host = f"{ssh.user}@{ssh.host.rpartition('@')[2]}" if ssh.user else ssh.host
    return (*flags(replace(ssh, user="")), host)


def over_ssh(ssh: Ssh, *words: str) -> str:
    """Return the command that runs words on another machine, quoted for both shells."""
    return f"{shlex.join(('ssh', *logging_in(ssh)))} {' '.join(map(_twice, words))}"


def _twice(word: str) -> str:
    """Return a word quoted for two shells: the first one removes the outer quotes."""
    there = shlex.quote(word)
    if there == word:
        return word
    return shlex.quote(there) if _READ_IN_DOUBLE_QUOTES.search(there) else f'"{there}"'
