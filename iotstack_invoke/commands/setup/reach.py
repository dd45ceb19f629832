"""Tests whether a new vault can be used, and offers what it lacks: a key, a login, a folder.

A command runs only after a yes at the terminal; without one, it is shown.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator

from ...core.dataclass import dataclass
from ...core.errors import (
    FolderMissing,
    Interrupted,
    IotstackError,
    KeyRefused,
    Refused,
    StepFailed,
)
from ...hosts.base import ANY_EXIT, Command
from ...hosts.local import LocalHost
from ...hosts.pasted import logging_in, over_ssh
from ...hosts.ssh_settings import Ssh
from ...reporting.report import Report
from ...settings.model import VaultConfig
from ...vaults.access import vault_storage
from ...vaults.folder import is_mounted
from .dialog import Dialog

NEW_KEY = "~/.ssh/id_ed25519"
TRUST = "inv hosts --trust"
"""The remedy for an unknown host key."""
AGENT_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Remedy:
    """Commands that may make a vault usable, as they are run and as they are shown."""

    commands: tuple[tuple[tuple[str, ...], str], ...]

    @property
    def shown(self) -> str:
        """The commands, one after the other, to paste."""
        return " && ".join(shown for _, shown in self.commands)


def make_usable(vault: VaultConfig, dialog: Dialog | None, report: Report) -> bool:
    """Return whether a vault answers, after what the user lets this do for it.

    Each remedy is offered once. What remains wrong is a warning. Without a terminal the remedy is
    only shown: doctor, which comes next, says what is wrong.
    """
    offered: set[str] = set()
    while (error := _trouble(vault)) is not None:
        remedy = _remedy(error, vault)
        shown = TRUST if _is_unknown(error) else remedy.shown
        if dialog is None:
            if remedy.shown:
                report.write(f"To make the vault {vault.name} usable: {remedy.shown}")
            return False
        if not shown or shown in offered:
            report.warn(str(error))
            return False
        offered.add(shown)
        if not _is_helped(vault, error, remedy, dialog, report):
            report.warn(f"The vault {vault.name} cannot be used yet.")
            return False
    report.write(f"The vault {vault.name} answers.")
    return True


def _is_helped(
    vault: VaultConfig, error: IotstackError, remedy: Remedy, dialog: Dialog, report: Report
) -> bool:
    """Offer what may help, and return whether it was done."""
    try:
        if vault.ssh and _is_unknown(error):
            return _trust(vault.ssh, vault.name, dialog, report)
        report.write(f"\n{error}\n\n  {remedy.shown}\n")
        return dialog.agrees("Run this now?") and _run(remedy, report)
    except (Refused, StepFailed) as other:
        report.warn(str(other))
        return False


def _trouble(vault: VaultConfig) -> IotstackError | None:
    """Return why a vault cannot be listed; None if it can."""
    storage = vault_storage(vault)
    try:
        storage.listdir(storage.root)
    except Interrupted:
        raise
    except IotstackError as error:
        return error
    storage.close()
    return None


def _remedy(error: IotstackError, vault: VaultConfig) -> Remedy:
    """Return what may help, without commands if nothing is known to."""
    return Remedy(tuple(_commands(error, vault)))


def _commands(error: IotstackError, vault: VaultConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    if vault.ssh is None:
        is_there = not vault.mount or is_mounted(os.path.realpath(vault.mount))
        if not vault.remote and is_there and not os.path.lexists(vault.folder):
            yield _same("mkdir", "-p", vault.folder)
        return
    login = logging_in(vault.ssh)
    if isinstance(error, FolderMissing):
        if "is a file" not in str(error):
            there = shlex.join(("mkdir", "-p", vault.folder))
            yield ("ssh", *login, there), over_ssh(vault.ssh, "mkdir", "-p", vault.folder)
    elif _is_refused_login(error):
        if not _has_key(vault.ssh, vault.name):
            key = os.path.expanduser(NEW_KEY)
            words = ("ssh-keygen", "-t", "ed25519", "-N", "", "-f")
            yield (*words, key), f"{shlex.join(words)} {NEW_KEY}"
        yield _same("ssh-copy-id", *login)


def _same(*words: str) -> tuple[tuple[str, ...], str]:
    return words, shlex.join(words)


def _is_unknown(error: IotstackError) -> bool:
    """Return whether a machine's key is merely unknown, and not another one than before."""
    return isinstance(error, KeyRefused) and error.fix.startswith(TRUST)


def _is_refused_login(error: IotstackError) -> bool:
    from paramiko import AuthenticationException

    return isinstance(error.__cause__, AuthenticationException)


def _has_key(ssh: Ssh, name: str) -> bool:
    """Return whether this user has a key to log in with, in a file or an agent."""
    from ...hosts.ssh_config import find_way

    if find_way(ssh, name).identities:
        return True
    told = LocalHost("/").run(Command(("ssh-add", "-l"), ANY_EXIT, AGENT_LIMIT_S))
    return not told.exit_code


def _trust(ssh: Ssh, name: str, dialog: Dialog, report: Report) -> bool:
    """Show the key of a machine, ask, and add it to known_hosts; return whether it was added."""
    from ...hosts.ssh_connection import offered_key, own_key, remember_key

    key = offered_key(ssh, name)
    report.write(f"\n{ssh.called(name)} has the host key {key.algorithm} {key.fingerprint}")
    report.write(f"To compare, run this on the screen of that machine: {own_key(key.algorithm)}")
    if not dialog.agrees("Does the machine itself print the same key?"):
        return False
    report.write(f"Written to {remember_key(key)}.")
    return True


def _run(remedy: Remedy, report: Report) -> bool:
    """Run the commands at the terminal, where they may ask for a password."""
    for words, shown in remedy.commands:
        try:
            code = subprocess.run(words, check=False).returncode
        except OSError as error:
            report.warn(f"{shown}: {error.strerror}.")
            return False
        if code:
            report.warn(f"{shown} failed, exit code {code}.")
            return False
    return True
