"""The settings: hosts.toml as frozen values.

Pure but for reading the one file. Not for: what is wrong with it (validation.py), defaults of the
command line (tasks.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from pathlib import PurePosixPath
from typing import Any

from ..backups.retention import Policy, read_policy
from ..core.dataclass import dataclass
from ..core.errors import SettingsError
from ..core.path_patterns import fits_all_of
from ..core.toml_text import NotToml, read_toml
from ..core.units import TimeTable, read_rates
from ..hosts.ssh_settings import Ssh
from ..services.known import (
    OF_RESTORES,
    PART_OF_DUMP,
    Kind,
    Service,
    ServiceTable,
    packaged_service,
    read_row,
    read_table,
)
from .keys import BY_HOST, PLAIN_KEYS
from .monitoring import NOTHING, Monitoring, read_monitoring
from .validation import (
    KEEP_FIVE,
    from_home,
    hook_table,
    local_policy,
    mistakes_in,
    mount_of,
    policy_keys,
)

_BRACKETED = re.compile(r"\[([*?\[])\]")
_AT_LINE = re.compile(r"at line (\d+)")
_WITH_PORT = re.compile(r"([^:/]+):(\d{1,5})", re.ASCII)
_HEADER = re.compile(r"\s*(\[\[?[^\[\]]+\]\]?)[\s,]*[^\s,#]")
"""The header of a table, with more text on its line."""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A path to pack that no container declares, or that is outside of the stack.

    Absolute, or relative to the stack's folder.
    """

    path: str
    restore_to: str = ""
    """Where a restore puts it; '' for its original place."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A path that is left out of a backup, and why.

    Of the stack, or absolute, or `volume:NAME`, or something below one of these.
    """

    path: str
    reason: str
    by_default: bool = False
    """It comes from the package's table, not from the owner."""

    @property
    def place(self) -> str:
        """The path; of a pattern for everything in a folder, the folder."""
        return _BRACKETED.sub(r"\1", self.path.removesuffix("/*"))

    def leaves_out(self, path: str) -> bool:
        """Return whether nothing of a path is in the general part."""
        return fits_all_of(self.path, path)


@dataclass(frozen=True, slots=True)
class VaultConfig:
    """A place for copies of sets: a folder of another machine, of this one, or of a cloud.

    Without its own policy nothing is ever removed there.
    """

    name: str
    folder: str
    ssh: Ssh | None = None
    policy: Policy | None = None
    mount: str = ""
    """The mount point that must be mounted; otherwise the folder is a different one."""
    remote: str = ""
    """The rclone remote that `folder` begins with, and its colon."""

    @property
    def is_far(self) -> bool:
        """Whether its files are on another machine."""
        return self.ssh is not None or bool(self.remote)

    by_host: bool = False
    """Copies are in a folder named after each machine, inside the vault's folder."""
    limit_rate: TimeTable | None = None
    """The limit in bytes per second for both directions together; None: none."""
    write_once: bool = False
    """Nothing can be removed or replaced there."""
    recipients: tuple[str, ...] = ()
    """The public keys for which copies are encrypted with age; none: they are unencrypted."""
    identity: str = ""
    """The file with the secret key that decrypts copies, from the command line alone."""
    stack: StackConfig | None = field(default=None, compare=False, repr=False)
    """The stack of this machine, which must not contain a vault."""
    before: tuple[VaultConfig, ...] = field(default=(), compare=False, repr=False)
    """The vaults that hosts.toml lists before it, whose folders it must not use."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A program of the owner's, run before or after a task: arguments, never a shell line."""

    words: tuple[str, ...]
    limit_s: float = 60.0
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of a machine before and after a backup of it, and a restore to it."""

    before_backup: tuple[Hook, ...] = ()
    after_backup: tuple[Hook, ...] = ()
    before_restore: tuple[Hook, ...] = ()
    after_restore: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Another machine with a stack, which is backed up from here, or restored to.

    `role` is live or test: a live one must be named twice. `machine_id`, if given, must be the
    content of its /etc/machine-id.
    """

    name: str
    ssh: Ssh
    folder: str = "IOTstack"
    role: str = "test"
    sudo: bool = True
    machine_id: str = ""
    hooks: Hooks = field(default_factory=Hooks)
    policy: Policy = KEEP_FIVE
    """Which of its own backups are kept there."""
    exclusions: tuple[Exclusion, ...] = ()
    exclude_defaults: bool = True
    adopt: bool = False
    inclusions: tuple[Inclusion, ...] = ()


@dataclass(frozen=True, slots=True)
class StackConfig:
    """The IOTstack on this machine."""

    folder: str
    policy: Policy = KEEP_FIVE
    sudo: bool = True
    exclusions: tuple[Exclusion, ...] = ()
    role: str = "test"
    exclude_defaults: bool = True
    """Leave out what the table of services declares unnecessary."""
    adopt: bool = False
    """Archives without a manifest that the policy would remove are verified, and then adopted."""
    inclusions: tuple[Inclusion, ...] = ()
    keep_previous: int = 1
    """How many previous states restores keep, however old."""
    keep_previous_days: int = 14
    """For how many days all of them are kept."""


@dataclass(frozen=True, slots=True)
class Influx:
    """The InfluxDB 1.x container of the stack."""

    container: str = "influxdb"
    limit_s: float = 3600.0

    @property
    def named(self) -> bool:
        """Whether hosts.toml names a non-default container: then no other is used."""
        return self.container != "influxdb"


@dataclass(frozen=True, slots=True)
class Options:
    """The flags that all tasks share."""

    dry_run: bool = False
    why: bool = False
    jobs: int = 2
    force: bool = False
    keep_going: bool = True
    identity: str = ""
    """The file with the secret key that decrypts copies."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, and the file that they came from ('' for the defaults)."""

    stack: StackConfig
    influx: Influx = field(default_factory=Influx)
    vaults: tuple[VaultConfig, ...] = ()
    machines: tuple[HostConfig, ...] = ()
    services: tuple[Service, ...] = ()
    """Added or changed rows of the table of services."""
    file: str = ""
    hooks: Hooks = field(default_factory=Hooks)
    """The hooks of this machine."""
    identity: str = ""
    """The file whose secret key opens what is encrypted, wherever it is read."""
    monitoring: Monitoring = NOTHING

    @property
    def table(self) -> ServiceTable:
        """The table of services with these settings applied."""
        return read_table(self.services, self.influx.container)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The services and containers that the owner leaves out of all backups.

        InfluxDB's and the recipes' have the names of their parts.
        """
        names = set[str]()
        for each in (e for e in self.services if e.kind is Kind.SKIP):
            packaged = packaged_service(each.name)
            part = PART_OF_DUMP.get(packaged.dump if packaged else "", "")
            names |= {each.name, *each.containers}
            names |= {part} if part.startswith("influx") else set()
            names |= {"influx"} if self.influx.container in names else set()
        return tuple(sorted(names))

    def opened_by(self, identity: str) -> Settings:
        """Return the settings with the file whose secret key decrypts copies in vaults."""
        vaults = tuple(replace(each, identity=identity) for each in self.vaults)
        return replace(self, vaults=vaults, identity=identity)

    def of_machine(self, machine: HostConfig, folder: str) -> Settings:
        """Return the settings with another machine's stack instead of this one's."""
        stack = StackConfig(
            folder,
            machine.policy,
            machine.sudo,
            machine.exclusions,
            machine.role,
            exclude_defaults=machine.exclude_defaults,
            adopt=machine.adopt,
            inclusions=machine.inclusions,
            keep_previous=self.stack.keep_previous,
            keep_previous_days=self.stack.keep_previous_days,
        )
        return replace(self, stack=stack, hooks=machine.hooks)


NEXTCLOUD = Exclusion("volumes/nextcloud/*", "Nextcloud is not safe to copy while it runs")
"""In no part, unless its recipe is used: it is NOT COVERED until its owner decides."""
ALWAYS_EXCLUDED = (
    Exclusion("volumes/influxdb/*", "InfluxDB's live files; its data are in the influx part"),
    NEXTCLOUD,
    Exclusion(OF_RESTORES[0], "what a restore replaced, on media of its own"),
    Exclusion(OF_RESTORES[1], "what a restore stages, on media of its own"),
)
"""What the seed leaves out; the empty folders themselves are in the archive."""


def places_to_look(environment: Mapping[str, str], checkout: str = "") -> tuple[str, ...]:
    """Return the possible settings files; the first one that exists is used.

    A user's own file comes before the checkout's, so that `inv` in a checkout and the installed
    program under cron use the same.
    """
    named = environment.get("IOTSTACK_SETTINGS", "")
    if named:
        return (named,)
    home = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    found = [f"{home}/iotstack/hosts.toml", "/etc/iotstack/hosts.toml"]
    return (*found, f"{checkout}/hosts.toml") if checkout else tuple(found)


def load_settings(path: str = "", *, checkout: str = "", may_be_missing: bool = False) -> Settings:
    """Return the settings in `path`, or in the first file found; without one, the defaults.

    Raises SettingsError, which lists every mistake in the file, and for a missing file that the
    user named unless it `may_be_missing`.
    """
    return read_settings(*load_content(path, checkout=checkout, may_be_missing=may_be_missing))


def load_content(
    path: str = "", *, checkout: str = "", may_be_missing: bool = False
) -> tuple[dict[str, Any], str]:
    """Return what that file holds, unchecked, and its name: {} and "" without a file.

    Raises SettingsError if it cannot be read, or is not TOML.
    """
    candidates = (path,) if path else places_to_look(os.environ, checkout)
    for candidate in candidates:
        try:
            with open(os.path.expanduser(candidate), "rb") as stream:
                content = stream.read()
            # Windows Notepad begins a file with a byte order mark.
            return read_toml(content.decode("utf-8-sig")), candidate
        except FileNotFoundError:
            continue
        except (NotToml, UnicodeDecodeError) as error:
            hint = _line_hint(content, str(error))
            text = f"{candidate} is not valid TOML: {error}.{hint}"
            raise SettingsError(text, file=candidate) from error
        except OSError as error:
            text = f"Cannot read {candidate}: {error.strerror}."
            raise SettingsError(text, file=candidate) from error
    if (path or os.environ.get("IOTSTACK_SETTINGS")) and not may_be_missing:
        raise SettingsError(f"Settings file {candidates[0]} not found.", file=candidates[0])
    return {}, ""


_CURLY = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb"
"""Quotes as word processors and phones write them."""
_UNCLOSED = re.compile(r"""Illegal character '\\n'|Unterminated string|Expected "'""")
_SETTING = re.compile(r"\s*([\w.-]+)\s*=\s*(\S.*?)\s*")


def _line_hint(content: bytes, error: str) -> str:
    """Return the line of an error, if it is a setting, and advice for common mistakes.

    A value of several words is omitted, since it may be a command with a secret; so is that of a
    key that is not known to hold none.
    """
    found, unclosed = _AT_LINE.search(error), " Is a closing quote missing?"
    if not found:
        return unclosed if _UNCLOSED.search(error) else ""
    line = content.decode("utf-8-sig", "replace").splitlines()[int(found[1]) - 1]
    if header := _HEADER.match(line):  # as in a sentence copied from our documentation
        return f" Put what follows {header[1]} on a new line below it."
    setting = _SETTING.fullmatch(line)
    if not setting:
        return ""
    key, value = setting.groups()
    text = value.strip(f"{_CURLY}'\"")
    is_plain = key.rpartition(".")[2] in PLAIN_KEYS
    shown = is_plain and text and not text.split()[1:]
    told = f" Line {found[1]}: {key} = {value if shown else '…'}"
    if value[0].isalpha() or value[0] in f"/~{_CURLY}":
        straight = f'{key} = "{text}"' if shown else f'{key} = "…"'
        return f"{told}. Use straight quotes for text: {straight}"
    return f"{told}.{unclosed}" if _UNCLOSED.search(error) else told


def read_settings(content: Mapping[str, Any], file: str) -> Settings:
    """Return the settings in a parsed file; raises SettingsError with all mistakes."""
    mistakes = mistakes_in(content)
    if mistakes:
        listed = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise SettingsError(f"{file} has mistakes:\n{listed}", mistakes, file=file)
    stack = content.get("stack", {})
    vaults = content.get("vaults", [])
    influx = content.get("influxdb", {})
    own = StackConfig(
        folder=os.path.expanduser(stack.get("folder", "~/IOTstack")).rstrip("/") or "/",
        policy=read_policy(local_policy(stack)),
        sudo=stack.get("sudo", True),
        role=stack.get("role", "test"),
        exclusions=_exclusions(stack),
        exclude_defaults=stack.get("exclude_defaults", True),
        adopt=stack.get("adopt", False),
        inclusions=_inclusions(stack),
        keep_previous=stack.get("keep_previous", 1),
        keep_previous_days=stack.get("keep_previous_days", 14),
    )
    return Settings(
        stack=own,
        influx=Influx(
            container=influx.get("container", "influxdb"),
            limit_s=float(influx.get("limit_s", 3600)),
        ),
        vaults=_vaults(vaults, own),
        machines=tuple(_machine(each) for each in content.get("hosts", [])),
        services=tuple(_service(each) for each in content.get("services", [])),
        file=file,
        hooks=_hooks(content.get("hooks", {})),
        monitoring=read_monitoring(content),
    )


def _vaults(rows: Iterable[Mapping[str, Any]], stack: StackConfig) -> tuple[VaultConfig, ...]:
    found: tuple[VaultConfig, ...] = ()
    for each in rows:
        found = (*found, replace(_vault(each), stack=stack, before=found))
    return found


def _vault(each: Mapping[str, Any]) -> VaultConfig:
    policy = policy_keys(each)
    if each["kind"] == "rclone":
        return VaultConfig(
            name=each["name"],
            folder=each["remote"].rstrip("/"),
            policy=read_policy(policy) if policy else None,
            remote=f"{each['remote'].partition(':')[0]}:",
            **_copying(each),
        )
    here = each["kind"] == "folder"
    folder = os.path.expanduser(each["folder"]).rstrip("/") or "/"
    return VaultConfig(
        name=each["name"],
        folder=folder if here else _far_folder(each["folder"]),
        ssh=None if here else _ssh(each),
        policy=read_policy(policy) if policy else None,
        mount=mount_of(each),
        **_copying(each),
    )


def _copying(each: Mapping[str, Any]) -> dict[str, Any]:
    """Return how copies are sent to a vault, of any kind."""
    rates = read_rates(each["limit_rate"]) if "limit_rate" in each else None
    return {
        "by_host": each.get("layout") == BY_HOST,
        "limit_rate": rates,
        "write_once": each.get("write_once", False),
        "recipients": tuple(each.get("recipients", ())),
    }


def _machine(each: Mapping[str, Any]) -> HostConfig:
    return HostConfig(
        name=each["name"],
        ssh=_ssh(each),
        folder=_far_folder(each.get("folder", "~/IOTstack")),
        role=each.get("role", "test"),
        sudo=each.get("sudo", True),
        machine_id=each.get("machine_id", ""),
        hooks=_hooks(each.get("hooks", {})),
        policy=read_policy(local_policy(each)),
        exclusions=_exclusions(each),
        exclude_defaults=each.get("exclude_defaults", True),
        adopt=each.get("adopt", False),
        inclusions=_inclusions(each),
    )


def _inclusions(stack: Mapping[str, Any]) -> tuple[Inclusion, ...]:
    tables = map(from_home, stack.get("include", []))
    rows = ((each["path"], each.get("restore_to", "")) for each in tables)
    return tuple(Inclusion(*(os.path.normpath(e) if e else "" for e in row)) for row in rows)


def _exclusions(stack: Mapping[str, Any]) -> tuple[Exclusion, ...]:
    return tuple(
        Exclusion(str(PurePosixPath(each["path"])), each["reason"])
        for each in map(from_home, stack.get("exclude", []))
    )


def _service(each: Mapping[str, Any]) -> Service:
    return read_row(each, packaged_service(each["name"]), own=True)


def _hooks(entry: Mapping[str, Any]) -> Hooks:
    return Hooks(**{name: tuple(map(_hook, hooks)) for name, hooks in entry.items()})


def _hook(each: Any) -> Hook:
    """Return a hook from a table, or from its short form: a list of words."""
    entry = hook_table(each)
    limit_s = float(entry.get("limit_s", 60))
    return Hook(tuple(entry["run"]), limit_s, entry.get("may_fail", False))


def _ssh(each: Mapping[str, Any]) -> Ssh:
    """Return how a machine is reached; `host:port`, which `ssh` does not accept, is split."""
    found = _WITH_PORT.fullmatch(each["host"])
    host, port = (found[1], int(found[2])) if found else (each["host"], 0)
    return Ssh(
        host=host,
        user=each.get("user", ""),
        port=each.get("port", port),
        key=os.path.expanduser(each.get("key", "")),
        config=os.path.expanduser(each.get("ssh_config", "")),
        known_hosts=os.path.expanduser(each.get("known_hosts", "")),
    )


def _far_folder(text: str) -> str:
    """Return a folder of another machine; relative paths, ~ and ~/ mean the login user's home.

    One that begins with a dash gets a leading `./`: programs would take it for an option.
    """
    folder = (text.rstrip("/") or text[:1]).removeprefix("~/")
    if folder in ("", "~"):
        return "."
    return f"./{folder}" if folder.startswith("-") else folder
