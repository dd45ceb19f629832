"""The hosts of the settings: whether each is reachable, trusted, and ready for a restore."""

from __future__ import annotations

import sys

from ...core.errors import ExitCode, IotstackError, KeyRefused, Refused, Unreachable
from ...core.stack_folders import RESTORE
from ...environment.stack_host import find_machine, open_target
from ...hosts.inspect import entries, free_bytes
from ...reporting.report import Report, size_text
from ...reporting.wrapping import answer_to
from ...settings.model import Settings


def list_hosts(settings: Settings, report: Report) -> int:
    """Print a line for each host, and return 1 if one is not ready for a restore."""
    if not settings.machines:
        report.write("hosts.toml has no hosts. Add one: [[hosts]]")
        return ExitCode.GOOD
    rows = []
    troubles = []
    for machine in settings.machines:
        try:
            with open_target(settings, machine.name) as target:
                found = entries(target.host, f"{target.folder}/{RESTORE}", target.as_root)
                previous = [n for n in found if n.startswith("previous-") and "-undone" not in n]
                last = max(previous, key=lambda name: name.rpartition("-")[2], default="")
                free = free_bytes(target.host, target.folder)
                rows.append(
                    (
                        machine.name,
                        machine.role,
                        *("yes", "yes", "yes"),
                        size_text(free) if free is not None else "?",
                        last.removeprefix("previous-") or "none",
                        target.folder,
                    )
                )
        except IotstackError as error:
            rows.append((machine.name, machine.role, *_found(error), "", "", machine.folder))
            troubles.append(f"{machine.name}: {error}")
    titles = ("host", "role", "reached", "key known", "docker", "free", "last restore", "folder")
    report.table(titles, rows, right=(5,), copied=(6, 7))
    for trouble in troubles:
        report.fail(trouble)
    return ExitCode.FAILED if troubles else ExitCode.GOOD


def _found(error: IotstackError) -> tuple[str, str, str]:
    """Return how far the checks came: reachable, key known, Docker usable."""
    if isinstance(error, KeyRefused):
        return "yes", "no", "?"
    return ("no", "?", "?") if isinstance(error, Unreachable) else ("yes", "yes", "no")


def trust_host(settings: Settings, name: str, report: Report, *, yes: bool) -> int:
    """Show the fingerprint of a host's key, ask, and write it into known_hosts.

    `name` is a host or a vault of the settings. Raises Refused if the user does not confirm,
    KeyRefused for a revoked key and if another one is known.
    """
    vaults = {each.name: each.ssh for each in settings.vaults if each.ssh}
    ssh = vaults.get(name) or find_machine(settings, name).ssh
    from ...hosts.ssh_connection import offered_key, own_key, remember_key

    key = offered_key(ssh, name)
    report.write(f"{ssh.called(name)} has the host key {key.algorithm} {key.fingerprint}")
    if key.is_known:
        report.write("The key is known already; nothing was written.")
        return ExitCode.GOOD
    report.write(f"To compare, run this on the screen of that machine: {own_key(key.algorithm)}")
    if not yes:
        if not sys.stdin.isatty():
            raise Refused("No terminal to confirm on. If the key is correct, add --yes.")
        asked = "Does the machine itself print the same key? [y/n] "
        if answer_to(asked).strip().lower() not in ("y", "yes"):
            raise Refused("Not trusted; nothing was written.")
    report.write(f"Written to {remember_key(key)}.")
    return ExitCode.GOOD
