"""The answers of `init` as they are typed or given as flags, and what hosts.toml holds for them.

Pure. The same grammar serves both; UsageError says what an answer may be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import urlsplit

from ...backups.retention import RULE_KEYS, policy_mistakes
from ...core.dataclass import dataclass
from ...core.errors import UsageError
from ...settings.validation import RESERVED_NAMES

NONE, NEVER = "none", "never"
USUAL_KEEP = "5"
USUAL_KEEP_COPIES = "daily=14,monthly=12"
USUAL_AT = "03:00"
USUAL_FOLDER = "backups/iotstack"
"""Where copies go on another machine: in the home of the user who logs in."""
USUAL_NAME = "iotstack"
"""The folder of the copies on a drive."""
USUAL_IN_CLOUD = "IOTstack/backups"
PING, NTFY = "ping", "ntfy"
PLACES = (
    "a folder such as /media/usb/iotstack, ssh:USER@HOST:FOLDER, rclone:REMOTE:FOLDER, or none"
)
POLICIES = "a number for the newest ones, or rules such as 5,daily=7,weekly=4,monthly=12,yearly=2"
RECEIVERS = (
    "ntfy:URL, ping:URL (healthchecks.io, Uptime Kuma), or none. In place of the URL, a file "
    "that holds it"
)
_SSH = re.compile(r"ssh:(?:([^@:/\s]+)@)?([^@:/\s]+):(?:([0-9]{1,5}):)?(.+)")
_TIME = re.compile(r"([01]?\d|2[0-3])[:.]([0-5]\d)", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}")
_NOT_IN_NAMES = re.compile(r"\W+", re.ASCII)
_RULES = tuple(key.removeprefix("keep_") for key in RULE_KEYS if key != "keep")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the user wants."""

    stack: str
    """The folder, absolute."""
    keep: Mapping[str, Any]
    """The rules of this machine, by their keys in hosts.toml."""
    at: str
    """HH:MM, '' for never."""
    vault: Mapping[str, Any] | None = None
    """A new row of vaults, without its name."""
    keep_copies: Mapping[str, Any] = field(default_factory=dict)
    """The rules of that vault."""
    notify: Mapping[str, Any] | None = None
    """A new row of notify, without its name."""


def read_place(text: str, flag: str = "--copies") -> dict[str, Any] | None:
    """Return the row of a vault, without its name; None for `none`."""
    text = text.strip()
    if text == NONE:
        return None
    if text.startswith(("/", "~/")):
        return {"kind": "folder", "folder": text.rstrip("/") or "/"}
    if found := _SSH.fullmatch(text):
        user, host, port, folder = found.groups()
        row: dict[str, Any] = {"kind": "ssh", "host": host}
        row |= {"user": user} if user else {}
        row |= {"port": int(port)} if port else {}
        return {**row, "folder": folder}
    kind, _, remote = text.partition(":")
    name, _, folder = remote.partition(":")
    if kind == "rclone" and name and folder.strip("/"):
        return {"kind": "rclone", "remote": remote}
    raise UsageError(f"{flag} {text}: must be {PLACES}.")


def place_text(row: Mapping[str, Any]) -> str:
    """Return the text that read_place reads for a row of vaults."""
    if row["kind"] == "folder":
        return str(row["folder"])
    if row["kind"] == "rclone":
        return f"rclone:{row['remote']}"
    user = f"{row['user']}@" if row.get("user") else ""
    port = f"{row['port']}:" if row.get("port") else ""
    return f"ssh:{user}{row['host']}:{port}{row['folder']}"


def is_same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two rows of vaults are one place, whatever else they say."""

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        folder = str(row.get("remote") or os.path.expanduser(row.get("folder", ""))).rstrip("/")
        return row.get("kind"), row.get("host"), row.get("user"), row.get("port"), folder

    return place(one) == place(other)


def place_name(row: Mapping[str, Any], taken: Iterable[str]) -> str:
    """Return a name for a new vault: of its machine, drive or remote."""
    if row["kind"] == "rclone":
        text = row["remote"].partition(":")[0]
    elif row["kind"] == "ssh":
        text = row["host"] if row["host"][0].isdigit() else row["host"].partition(".")[0]
    else:
        folder, own = os.path.split(row["folder"])
        text = os.path.basename(folder) if own.lower() in (USUAL_NAME, "backups") else own
    return free_name(text, taken, "copies")


def free_name(text: str, taken: Iterable[str], otherwise: str) -> str:
    """Return a name that a row may have, made of a text, and that no other row has."""
    base = _NOT_IN_NAMES.sub("-", text).strip("-")
    base = base if base[:1].isalpha() else "-".join(filter(None, (otherwise, base)))
    used, name, number = {*taken, *RESERVED_NAMES}, base, 2
    while name in used:
        name, number = f"{base}{number}", number + 1
    return name


def read_keep(text: str, flag: str = "--keep") -> dict[str, Any]:
    """Return the keys of a policy: `5`, `daily=7,weekly=4`, `within=30d`."""
    found: dict[str, Any] = {}
    for word in filter(None, re.split(r"[,\s]+", text.strip())):
        rule, is_named, value = word.rpartition("=")
        key = f"keep_{rule}" if is_named else "keep"
        if (is_named and rule not in _RULES) or key in found:
            raise UsageError(f"{flag} {text}: must be {POLICIES}.")
        found[key] = int(value) if _NUMBER.fullmatch(value) else value
        if isinstance(found[key], str) != (RULE_KEYS[key] is str):
            raise UsageError(f"{flag} {text}: must be {POLICIES}.")
    for key, wrong in policy_mistakes(found):
        raise UsageError(f"{flag} {text}: {key.removeprefix('keep_')} {wrong}.")
    return found


def keep_text(policy: Mapping[str, Any]) -> str:
    """Return the text that read_keep reads for the rules of a policy, '' if it has none."""
    rules = ((key, policy[key]) for key in RULE_KEYS if policy.get(key))
    return ",".join(
        str(value) if key == "keep" else f"{key.removeprefix('keep_')}={value}"
        for key, value in rules
    )


def read_at(text: str) -> str:
    """Return a time of day as HH:MM, '' for `never`."""
    found = _TIME.fullmatch(text.strip())
    if text.strip() == NEVER:
        return ""
    if not found:
        raise UsageError(f"--at {text}: must be a time of day such as {USUAL_AT}, or never.")
    return f"{int(found[1]):02}:{found[2]}"


def read_receiver(text: str) -> dict[str, Any] | None:
    """Return the row of notify, without its name; None for `none`.

    Its URL is a secret, so no message quotes it.
    """
    text = text.strip()
    if text == NONE:
        return None
    kind, _, value = text.partition(":")
    if is_url(text):
        kind, value = kind_of(text), text
    if kind in (PING, NTFY) and value.startswith(("/", "~/")):
        return {"kind": kind, "url_file": value}
    if kind in (PING, NTFY) and is_url(value):
        return {"kind": kind, "url": value}
    raise UsageError(f"--notify must be {RECEIVERS}.")


def is_url(text: str) -> bool:
    """Return whether a text is the address of a web server, without odd characters."""
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:  # it quotes the address
        return False
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return parts.scheme in ("http", "https") and is_whole and is_plain


def kind_of(url: str) -> str:
    """Return the kind of a well-known server, '' for any other."""
    parts = urlsplit(url)
    host, path = parts.hostname or "", parts.path
    if host.startswith("ntfy."):
        return NTFY
    is_ping = host.startswith(("hc-ping.", "healthchecks.", "hc.")) or path.startswith(
        ("/api/push/", "/ping/")
    )
    return PING if is_ping else ""
