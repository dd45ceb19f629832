"""The hosts of the settings: whether each is reachable, trusted, and ready for a restore."""

from __future__ import annotations

import sys
from dataclasses import asdict

from ...core.dataclass import dataclass
from ...core.errors import ExitCode, IotstackError, KeyRefused, Refused, Unreachable
from ...core.stack_folders import RESTORE
from ...environment.stack_host import find_machine, open_target
from ...hosts.inspect import entries, free_bytes
from ...reporting.report import Report, size_text
from ...reporting.wrapping import answer_to
from ...settings.model import HostConfig, Settings

TITLES = ("host", "role", "reached", "key known", "docker", "free", "last restore", "folder")


@dataclass(frozen=True, slots=True)
class HostState:
    """What is known of a host. `yes`, `no`, or `?` if it was not asked so far."""

    host: str
    role: str
    folder: str
    reached: str = "yes"
    key_known: str = "yes"
    docker: str = "yes"
    free_bytes: int | None = None
    last_restore: str = ""
    """The runtag and time of the last one whose old state is kept."""
    trouble: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Its line in the table."""
        free = "?" if self.free_bytes is None else size_text(self.free_bytes)
        asked = (self.reached, self.key_known, self.docker)
        known = ("", "") if self.trouble else (free, self.last_restore or "none")
        return (self.host, self.role, *asked, *known, self.folder)


def list_hosts(settings: Settings, report: Report, *, as_json: bool = False) -> int:
    """Print a line for each host, and return 1 if one is not ready for a restore."""
    states = [_state_of(settings, each) for each in settings.machines]
    if as_json:
        report.write_json([asdict(each) for each in states])
    elif states:
        report.table(TITLES, [each.row for each in states], right=(5,), copied=(6, 7))
    else:
        report.write("hosts.toml has no hosts. Add one: [[hosts]]")
    troubles = [f"{each.host}: {each.trouble}" for each in states if each.trouble]
    for trouble in troubles:
        report.fail(trouble)
    return ExitCode.FAILED if troubles else ExitCode.GOOD


def _state_of(settings: Settings, machine: HostConfig) -> HostState:
    name, role = machine.name, machine.role
    try:
        with open_target(settings, name) as target:
            found = entries(target.host, f"{target.folder}/{RESTORE}", target.as_root)
            previous = [each for each in found if each.startswith("previous-")]
            kept = [each for each in previous if "-undone" not in each]
            last = max(kept, key=lambda each: each.rpartition("-")[2], default="")
            return HostState(
                name,
                role,
                target.folder,
                free_bytes=free_bytes(target.host, target.folder),
                last_restore=last.removeprefix("previous-"),
            )
    except IotstackError as error:
        return HostState(name, role, machine.folder, *_found(error), trouble=str(error))


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
