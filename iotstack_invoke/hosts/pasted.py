"""Commands that people paste: each word quoted for every shell that reads it.

A path with a blank in it made two folders otherwise. Not for: what we run ourselves (hosts.py).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

from .ssh_settings import Ssh

_READ_IN_DOUBLE_QUOTES = re.compile(r'["$`\\!]')


def host_flag(name: str) -> str:
    """Return the flag that means a host, behind a blank; '' for this machine."""
    return f" --host {shlex.quote(name)}" if name else ""


def logging_in(ssh: Ssh) -> tuple[str, ...]:
    """Return the words behind `ssh`, or `ssh-copy-id`, that log in as hosts.toml says."""
    from .ssh_config import flags  # which brings Paramiko: whoever tells of a login has it

    host = f"{ssh.user}@{ssh.host.rpartition('@')[2]}" if ssh.user else ssh.host
    return (*flags(replace(ssh, user="")), host)


def over_ssh(ssh: Ssh, *words: str) -> str:
    """Return the command that runs words on another machine, quoted for its shell and for ours."""
    return f"{shlex.join(('ssh', *logging_in(ssh)))} {' '.join(map(_twice, words))}"


def _twice(word: str) -> str:
    """Return a word for two shells: the first one takes off the outer quotes."""
    there = shlex.quote(word)
    if there == word:
        return word
    return shlex.quote(there) if _READ_IN_DOUBLE_QUOTES.search(there) else f'"{there}"'
