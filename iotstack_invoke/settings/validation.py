"""The mistakes in a hosts.toml: all at once, each with its position.

Pure. Knows the keys of each table and their valid values; their meaning is in model.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..backups.retention import POLICY_KEYS, RULE_KEYS, Policy, policy_mistakes
from ..core.errors import UsageError
from ..core.nearest import nearest
from ..core.path_patterns import fits_all_of
from ..core.stack_folders import FOLDERS, KEPT_OUT
from ..core.units import read_duration, read_rates
from ..services.known import (
    Kind,
    Service,
    is_part_of_stack,
    packaged_names,
    packaged_service,
    read_row,
    row_conflicts,
    row_mistakes,
)
from .keys import (
    MOST_PORT,
    MOST_SECONDS,
    PLAIN_KEYS,
    ROWS,
    SINGLE,
    SSH,
    TABLES,
    TOP,
    VAULT_KINDS,
    Key,
)

ANY_NAME = "\0" * 3
"""A name that only a pattern for all names matches."""
KEEP_FIVE = Policy(keep=5)
"""The policy on this machine if [stack] gives none."""

MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 3_500
"""Linux allows 255 and 4,096 (limits.h); this leaves space for our names below a folder."""
MOST_SHOWN = 40
_PATH_KEYS = frozenset(
    {"folder", "mount", "path", "restore_to", "key", "ssh_config", "known_hosts", "paths"}
)
DOCKER_FOLDER = "/var/lib/docker"
_VOLUME = re.compile(r"volume:[A-Za-z0-9][A-Za-z0-9_.-]*(:/[^:]*|/.+)?")
_PLACES = "must be a path in the stack's folder (not backups/ or restore/), or an absolute path"
_PORTS = f"must be between 1 and {MOST_PORT}"
RESERVED_NAMES = frozenset({"pi", "from", "dump", "media", "here", "vault", "all"})
"""Words of the rules, of --from and of --at, which no vault may have as its name."""
_VAULT_NAME = re.compile(r"[^\W\d][\w-]*")
_REMOTE = re.compile(r"[\w.+@][\w.+@ -]*:.*[^/].*")
"""A remote's name by rclone's grammar, a colon, and a folder in it."""
_RECIPIENT = re.compile(r"age1[a-z0-9]+|ssh-(ed25519|rsa) \S+( .*)?")
"""What age(1) encrypts for: its own public keys, those of its plugins, and those of SSH."""
_WORDS = {
    str: "a text in quotes",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def mistakes_in(content: Mapping[str, Any]) -> list[str]:
    """Return every mistake in a parsed file, [] if it is valid."""
    return [
        *_mistakes(content),
        *_text_mistakes(content),
        *_stack_mistakes(_sound(content.get("stack"), "stack")),
        *_influx_mistakes(_sound(content.get("influxdb"), "influxdb")),
        *_vault_mistakes(_sound_list(content.get("vaults"), "vaults")),
        *_machine_mistakes(_sound_list(content.get("hosts"), "hosts")),
        *_service_mistakes(
            _sound_list(content.get("services"), "services"),
            _sound(content.get("influxdb"), "influxdb").get("container", "influxdb"),
        ),
        *_hooks_mistakes("[hooks]", _sound(content.get("hooks"), "hooks")),
        *_notify_mistakes(_sound_list(content.get("notify"), "notify")),
        *_mqtt_mistakes(_sound(content.get("mqtt"), "mqtt")),
        *_metrics_mistakes(_sound(content.get("metrics"), "metrics")),
    ]


def local_policy(stack: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the policy on this machine, with the default if there are none."""
    given = policy_keys(stack)
    return given if set(given) & set(RULE_KEYS) else {**given, "keep": KEEP_FIVE.keep}


def policy_keys(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a policy in a table."""
    return {key: entry[key] for key in POLICY_KEYS if key in entry}


def mount_of(vault: Mapping[str, Any]) -> str:
    """Return the mount point that a vault names, '' for none."""
    return os.path.normpath(os.path.expanduser(vault["mount"])) if "mount" in vault else ""


def hook_table(each: Any) -> dict[str, Any]:
    """Return a hook as a table, even if it is written as a list of words."""
    return each if isinstance(each, dict) else {"run": each}


def _mistakes(content: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with names and types."""
    found = _unknown("", content, TOP)
    for section in SINGLE:
        if isinstance(content.get(section, {}), dict):
            found += _wrong(f"[{section}]", content.get(section, {}), TABLES[section])
        else:
            found.append(f"{section}: must be a table: [{section}]")
    tables = [(f"[[{name}]]", content.get(name, []), name) for name in ROWS]
    machines = content.get("hosts", [])
    owners = [("stack", content.get("stack"))]
    owners += [("hosts", each) for each in (machines if isinstance(machines, list) else ())]
    tables += [
        (f"[[{title}.{key}]]", owner[key], key)
        for title, owner in owners
        for key in ("exclude", "include")
        if isinstance(owner, dict) and key in owner
    ]
    for title, entries, section in tables:
        if isinstance(entries, dict):
            found.append(f"{title}: write {title}, not {title[1:-1]}")
            continue
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            found.append(f"{title}: must be a list of tables, each under its own {title}")
            continue
        for number, entry in enumerate(entries, 1):
            found += _wrong(f"{title} number {number}", entry, TABLES[section])
            missing = [key for key in _needed(section, entry) if key not in entry]
            found += [f"{title} number {number}: '{key}' is missing" for key in missing]
    return found


def _needed(section: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    needed = tuple(name for name, key in TABLES[section].items() if key.needed)
    if section == "vaults":
        return (*needed, "remote" if entry.get("kind") == "rclone" else "folder")
    return needed


def _wrong(where: str, entry: Mapping[str, Any], keys: Mapping[str, Key]) -> list[str]:
    found = _unknown(f"{where}: ", entry, keys)
    for key, value in entry.items():
        kind = keys[key].type if key in keys else object
        if not _fits(value, kind):
            first = kind[0] if isinstance(kind, tuple) else kind
            shown = f" = {value!r}" if key in PLAIN_KEYS else ""
            found.append(f"{where}: {key}{shown} must be {_WORDS[first]}")
    return found


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    # bool is an int in Python, not for users
    return isinstance(value, kind) and not (isinstance(value, bool) and kind not in (bool, object))


def _outside(where: str, entry: Mapping[str, Any], section: str) -> Iterator[str]:
    """Yield the values that are not among the choices of a key, or outside of its limits.

    Retention and SSH have messages of their own.
    """
    for name, value in entry.items():
        key = TABLES[section][name]
        values = value if isinstance(value, list) else [value]
        if key.choices and (wrong := [each for each in values if each not in key.choices]):
            *first, last = map(repr, key.choices)
            yield f"{where}: {name} = {wrong[0]!r} must be {', '.join(first)} or {last}"
        elif name in POLICY_KEYS or SSH.get(name) is key or None in (key.least, key.most):
            continue
        elif not key.least <= value <= key.most:
            yield f"{where}: {name} = {value} must be between {key.least} and {key.most:,}"


def _sound(entry: Any, section: str) -> dict[str, Any]:
    """Return the entries of a table with a known name and the right type, for further checks."""
    keys = TABLES[section]
    items = entry.items() if isinstance(entry, dict) else ()
    return {key: value for key, value in items if key in keys and _fits(value, keys[key].type)}


def _sound_list(entries: Any, section: str) -> list[dict[str, Any]]:
    return [_sound(each, section) for each in (entries if isinstance(entries, list) else ())]


def _unknown(where: str, entry: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    names = list(known)
    found = []
    for key in entry:
        if key not in names:
            near = nearest(key, names)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
            found.append(f"{where}'{key}' is unknown; {hint}")
    return found


def _text_mistakes(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that no program or file system accepts.

    TOML allows a NUL character.
    """
    for where, key, text in _texts(content):
        if "\0" in text:
            yield f"{where} holds a NUL character: {text!r}"
        names = [os.fsencode(each) for each in text.split("/")] if key in _PATH_KEYS else []
        if names and max(map(len, names)) > MOST_NAME_BYTES:
            yield f"{where} has a name of more than {MOST_NAME_BYTES} bytes: {_cut(text)}"
        elif names and sum(map(len, names)) + len(names) > MOST_PATH_BYTES:
            yield f"{where} is longer than {MOST_PATH_BYTES:,} bytes: {_cut(text)}"


def _texts(value: Any, where: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each text of a file, with its position and its key."""
    if isinstance(value, str):
        yield where, key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            title = f"[[{name}]]" if isinstance(inner, list) else f"[{name}]"
            yield from _texts(inner, f"{where}: {name}" if where else title, name)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _texts(inner, f"{where} number {number}", key)


def _cut(text: str) -> str:
    return f"{text[:MOST_SHOWN]!r}{'…' if len(text) > MOST_SHOWN else ''}"


def _stack_mistakes(stack: Mapping[str, Any]) -> list[str]:
    found = _policy_mistakes("[stack]", local_policy(stack))
    found += _outside("[stack]", stack, "stack")
    folder = os.path.expanduser(stack.get("folder", "~/IOTstack"))
    if not folder.startswith("/"):
        found.append(f"[stack]: folder = {folder!r} must begin with / or ~")
    return [*found, *_path_mistakes("stack", stack)]


def _path_mistakes(title: str, stack: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the paths that a stack includes and excludes."""
    lists = {key: _sound_list(stack.get(key), key) for key in ("exclude", "include")}
    of_home = [
        f"[[{title}.{key}]]: {name} = {row[name]!r}"
        for key, rows in lists.items()
        for row in rows
        for name in ("path", "restore_to")
        if is_of_home(row.get(name, ""))
    ]
    if of_home and title != "stack":
        yield from (
            f"{each} must be an absolute path: the home folder there is not known here"
            for each in of_home
        )
        return
    exclude, include = (list(map(from_home, lists[key])) for key in ("exclude", "include"))
    for each in exclude:
        where = f"[[{title}.exclude]]: path = {each.get('path')!r}"
        path = _plain(each.get("path", "volumes/any"))
        mounted = path.startswith(("backups/", "restore/"))  # a container may
        if not (_is_place(path) or path == "." or mounted or _VOLUME.fullmatch(path)):
            yield f"{where} {_PLACES}, or volume:NAME"
        if not each.get("reason", "any").strip():
            yield f"{where} needs a reason"
    for each in include:
        path, goal = each.get("path", "volumes/any"), each.get("restore_to", "/any")
        where = f"[[{title}.include]]: path = {path!r}"
        path = _plain(path)
        if not _is_place(path):
            yield f"{where} {_PLACES}"
        elif "restore_to" in each and not path.startswith("/"):
            yield f"{where} is restored in the stack; restore_to is for absolute paths"
        elif _holds_docker(path):
            yield (
                f"{where} contains Docker's own folder: images, and files that running "
                "containers write. Named volumes are backed up separately; include only the "
                "other paths that you need"
            )
        elif path.startswith("/") and PurePosixPath(path).parts[1] in ("proc", "sys"):
            yield f"{where} contains no files, only data of the running kernel"
        around = _row_around(path, include)
        if "restore_to" in each and around and f"{goal}/".startswith(f"{around}/"):
            yield f"{where}: restore_to = {goal!r} is inside {around!r}, the goal of another row"
        if not goal.startswith("/") or not _is_place(goal):
            yield f"{where}: restore_to = {goal!r} must be an absolute path, and not / itself"
        elif _is_of_backups(_plain(goal), os.path.expanduser(stack.get("folder", "~/IOTstack"))):
            yield (
                f"{where}: restore_to = {goal!r} is the stack's folder, or is inside a folder "
                "that backups or restores use"
            )


def _plain(path: str) -> str:
    """Return a path as archives name it, without redundant parts: `./a//b/.`, `a/`."""
    return str(PurePosixPath(path)) if path and not path.startswith("volume:") else path


def _is_of_backups(path: str, folder: str) -> bool:
    """Return whether a path is the stack's folder, or one that backups leave out."""
    below = PurePosixPath(path)
    kept = (PurePosixPath(folder, each) for each in KEPT_OUT)
    return below == PurePosixPath(folder) or any(below.is_relative_to(each) for each in kept)


def is_of_home(path: str) -> bool:
    """Return whether a path is in the current user's home, in shell syntax."""
    return path == "~" or path.startswith("~/")


def from_home(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an include or exclude row with its home paths expanded."""
    paths = {key: row[key] for key in ("path", "restore_to") if is_of_home(row.get(key, ""))}
    return {**row, **{key: os.path.expanduser(path) for key, path in paths.items()}}


def _row_around(path: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the restore path of the row that contains a path; '' if there is none."""
    for each in rows:
        other = str(each.get("path", ""))
        if other.startswith("/") and path.rstrip("/").startswith(f"{other.rstrip('/')}/"):
            return str(each.get("restore_to", other)).rstrip("/")
    return ""


def _holds_docker(path: str) -> bool:
    """Return whether a path is Docker's own folder, or contains it; one volume is neither."""
    path = os.path.normpath(path)
    return f"{DOCKER_FOLDER}/volumes/".startswith(f"{path}/") or (
        path.startswith(f"{DOCKER_FOLDER}/") and not path.startswith(f"{DOCKER_FOLDER}/volumes/")
    )


def _is_place(path: str) -> bool:
    """Return whether a backup may hold a path: one of the stack, or an absolute one."""
    if path.startswith("/"):
        return ".." not in path.split("/") and os.path.normpath(path) not in ("/", "//")
    return is_part_of_stack(path) and not path.startswith("volume:")


def _policy_mistakes(where: str, policy: Mapping[str, Any]) -> list[str]:
    return [
        f"{where}: {key} = {policy.get(key, 0)!r} {wrong}"
        for key, wrong in policy_mistakes(policy)
    ]


def _influx_mistakes(influx: Mapping[str, Any]) -> list[str]:
    found = list(_limit_mistakes("[influxdb]", influx))
    container = influx.get("container", "influxdb")
    if not container or container.startswith("-"):
        found.append(f"[influxdb]: container = {container!r} is not a valid container name")
    return found


def _vault_mistakes(vaults: Iterable[Mapping[str, Any]]) -> list[str]:
    found = []
    names = set[str]()
    for number, each in enumerate(vaults, 1):
        name, kind = each.get("name", f"vault{number}"), each.get("kind")
        where = f"[[vaults]] '{name}'"
        if not _VAULT_NAME.fullmatch(name):
            found.append(
                f"{where}: a name has only letters, digits, _ and -, and begins with a letter"
            )
        elif name in RESERVED_NAMES:
            taken = ", ".join(sorted(RESERVED_NAMES))
            found.append(f"{where}: the names {taken} are reserved")
        elif name in names:
            found.append(f"{where}: names must be unique")
        names.add(name)
        found += _outside(where, each, "vaults")
        found += _remote_mistakes(where, each)
        if kind == "ssh" and not each.get("host"):
            found.append(f"{where}: 'host' is missing")
        found += _ssh_mistakes(where, each)
        if kind == "folder" and not os.path.expanduser(each.get("folder", "/")).startswith("/"):
            found.append(f"{where}: folder = {each['folder']!r} must begin with / or ~")
        if kind == "folder":
            found += [f"{where}: '{k}' is for kind = 'ssh'" for k in SSH if k in each]
        found += [f"{where}: {mistake}" for mistake in _mount_mistakes(each)]
        if policy_keys(each):
            found += _policy_mistakes(where, policy_keys(each))
        found += _copying_mistakes(where, each)
    return found


def _mount_mistakes(vault: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the mount point of a vault."""
    if "mount" not in vault:
        return
    mount = mount_of(vault)
    folder = os.path.normpath(os.path.expanduser(vault.get("folder", "/")))
    if vault.get("kind", "folder") != "folder":
        yield "'mount' is for kind = 'folder'"
    elif not mount.startswith("/") or mount == "/":
        yield f"mount = {vault['mount']!r} must be a folder below /, where a drive is mounted"
    elif "folder" in vault and not f"{folder}/".startswith(f"{mount}/"):
        yield f"folder = {vault['folder']!r} must lie below mount = {vault['mount']!r}"


def _remote_mistakes(where: str, vault: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the remote of a vault, which replaces folder and host."""
    if vault.get("kind") != "rclone":
        if "remote" in vault and vault.get("kind") in VAULT_KINDS:
            yield f"{where}: 'remote' is for kind = 'rclone'"
        return
    for key in ("folder", *SSH):
        if key in vault:
            yield f"{where}: '{key}' is not for kind = 'rclone'"
    remote = vault.get("remote", "any:any")
    if not _REMOTE.fullmatch(remote) or ".." in remote.partition(":")[2].split("/"):
        yield (
            f"{where}: remote = {vault['remote']!r} must name a remote of `rclone config` and a "
            "folder in it: 'dropbox:IOTstack/backups'"
        )


def _copying_mistakes(where: str, vault: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with how copies are sent to a vault."""
    if "limit_rate" in vault:
        try:
            read_rates(vault["limit_rate"])
        except ValueError as error:
            yield f"{where}: limit_rate = {vault['limit_rate']!r} {error}"
    if vault.get("write_once") and vault.get("kind", "rclone") != "rclone":
        yield f"{where}: 'write_once' is for kind = 'rclone'"
    if vault.get("write_once") and policy_keys(vault):
        named = ", ".join(policy_keys(vault))
        yield (
            f"{where}: {named}: not allowed with write_once = true, because nothing can be "
            "removed there; let the lifecycle rules of the bucket remove old files"
        )
    if "recipients" in vault:
        yield from _recipient_mistakes(where, vault["recipients"])


def _recipient_mistakes(where: str, recipients: list[Any]) -> Iterator[str]:
    """Yield what is wrong with the keys that encrypt copies; a secret one is not shown."""
    if not recipients:
        yield (
            f"{where}: recipients is empty; remove it for unencrypted copies, or add a public key"
        )
    for each in recipients:
        if isinstance(each, str) and "SECRET-KEY" in each.upper():
            yield (
                f"{where}: recipients holds a SECRET key. Do not keep it on this machine: use "
                "the public key instead, which begins with age1"
            )
        elif not (isinstance(each, str) and _RECIPIENT.fullmatch(each)):
            yield (
                f"{where}: recipients: {each!r} must be a public key of age-keygen (age1…) or of "
                "SSH (ssh-ed25519 …)"
            )


def _machine_mistakes(machines: Iterable[Mapping[str, Any]]) -> list[str]:
    found = []
    names = set[str]()
    for number, each in enumerate(machines, 1):
        name = each.get("name", f"host{number}")
        where = f"[[hosts]] '{name}'"
        if not name or name.startswith("-") or name in names:
            found.append(f"{where}: names must be unique and must not begin with '-'")
        names.add(name)
        found += _outside(where, each, "hosts")
        found += _ssh_mistakes(where, each)
        hooks, title = each.get("hooks", {}), f"{where}: [hosts.hooks]"
        found += _wrong(title, hooks, TABLES["hooks"])
        found += _policy_mistakes(where, local_policy(each))
        found += [f"{where}: {mistake}" for mistake in _path_mistakes("hosts", each)]
        found += _hooks_mistakes(title, _sound(hooks, "hooks"))
    return found


def _hooks_mistakes(where: str, hooks: Mapping[str, Any]) -> list[str]:
    found = []
    for name, entries in hooks.items():
        for number, each in enumerate(entries, 1):
            found += _hook_mistakes(f"{where}: {name} number {number}", hook_table(each))
    return found


def _hook_mistakes(where: str, hook: Mapping[str, Any]) -> list[str]:
    """Quote no word of a command: it may be a secret, and messages go to phones."""
    rest = {key: value for key, value in hook.items() if key != "run"}
    found = _wrong(where, rest, TABLES["hook"])
    words = hook.get("run")
    if isinstance(words, str):
        shell = '["sh", "-c", "…"] for a line of a shell'
        found.append(f"{where}: it must be a list of words, such as {shell}")
    elif not (isinstance(words, list) and words and all(isinstance(w, str) for w in words)):
        found.append(f"{where}: 'run' must be a list of words that begins with the program")
    elif not words[0] or words[0].startswith(("~", "-")) or "=" in words[0]:
        found.append(f"{where}: its first word must be a program: its name or its absolute path")
    return [*found, *_limit_mistakes(where, _sound(hook, "hook"))]


def _limit_mistakes(where: str, entry: Mapping[str, Any]) -> Iterator[str]:
    limit_s = entry.get("limit_s", 1)
    if not 0 < limit_s <= MOST_SECONDS:
        yield (
            f"{where}: limit_s = {limit_s} must be a number of seconds, more than 0 and at most "
            f"{MOST_SECONDS:,} (a year)"
        )


def _notify_mistakes(rows: list[dict[str, Any]]) -> Iterator[str]:
    names = set[str]()
    for number, each in enumerate(rows, 1):
        name = each.get("name", f"row {number}")
        where = f"[[notify]] {name!r}"
        if name in names:
            yield f"{where} is given twice"
        names.add(name)
        yield from _outside(where, each, "notify")
        yield from _secret_mistakes(where, each, "url", needed=True)
        yield from _secret_mistakes(where, each, "token")
        kind, url = each.get("kind"), each.get("url", "")
        if kind in ("ping", "ntfy") and url and not url.startswith(("http://", "https://")):
            yield f"{where}: its url must begin with https:// or http://"
        if kind in ("ping", "apprise") and {"token", "token_file", "token_command"} & {*each}:
            yield f"{where}: a token is for kind = 'ntfy'"


def _mqtt_mistakes(mqtt: Mapping[str, Any]) -> Iterator[str]:
    yield from _outside("[mqtt]", mqtt, "mqtt")
    yield from _secret_mistakes("[mqtt]", mqtt, "password")
    yield from _duration_mistakes("[mqtt]", mqtt, "silent_after")
    if not mqtt.get("user") and any(key.startswith("password") for key in mqtt):
        yield "[mqtt]: 'user' is missing: a password needs one"
    prefix = mqtt.get("prefix", "homeassistant")
    if not prefix or {"+", "#"} & {*prefix}:
        yield f"[mqtt]: prefix = {prefix!r} must be the name of a topic, without + and #"


def _metrics_mistakes(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield from _secret_mistakes("[metrics]", metrics, "password")
    if not metrics.get("user") and any(key.startswith("password") for key in metrics):
        yield "[metrics]: 'user' is missing: a password needs one"
    yield from _duration_mistakes("[metrics]", metrics, "retention")
    if metrics.get("retention", "1h").endswith("min"):
        yield "[metrics]: retention: InfluxDB keeps values for at least 1h"
    file = metrics.get("textfile")
    if file is not None and not (file.startswith(("/", "~/")) and file.endswith(".prom")):
        yield f"[metrics]: textfile = {file!r} must be an absolute path that ends with .prom"


def _duration_mistakes(where: str, entry: Mapping[str, Any], key: str) -> Iterator[str]:
    try:
        read_duration(entry.get(key, "1h"))
    except UsageError as error:
        yield f"{where}: {key}: {error}"


def _secret_mistakes(
    where: str, entry: Mapping[str, Any], name: str, *, needed: bool = False
) -> Iterator[str]:
    """Yield what is wrong with a secret: it comes from one place. It is never quoted."""
    keys = (name, f"{name}_file", f"{name}_command")
    given = [key for key in keys if key in entry]
    if len(given) > 1:
        yield f"{where}: give one of {', '.join(given)}"
    elif needed and not given:
        yield f"{where}: one of {', '.join(keys)} is missing"
    if "://" in entry.get(keys[1], ""):
        yield f"{where}: {keys[1]} is an address: it must be the file that has the {name}"
    words = entry.get(keys[2], ["any"])
    if not (words and all(isinstance(word, str) and word for word in words)):
        yield f"{where}: {keys[2]} must be a list of words that begins with the program"


def _service_mistakes(rows: list[dict[str, Any]], influx: str) -> list[str]:
    if not rows:  # then the package's table need not be read
        return []
    found = []
    known = {*packaged_names(), *(each["name"] for each in rows if "name" in each)}
    names = set[str]()
    sound: dict[int, Service] = {}
    for number, each in enumerate(rows, 1):
        name = each.get("name", f"service{number}")
        where = f"[[services]] '{name}'"
        if name in names:
            found.append(f"{where}: names must be unique")
        names.add(name)
        base = packaged_service(name)
        wrong = row_mistakes(each, base)
        found += [f"{where}: {mistake}" for mistake in wrong]
        if wrong or "name" not in each:
            continue
        service = sound[number] = read_row(each, base)
        found += [f"{where}: {mistake}" for mistake in _skips_all(service)]
        if service.dump == "influxdb" and (name != "influxdb" or "containers" in each):
            found.append(f"{where}: the InfluxDB to dump is set by [influxdb] container")
        dumped = service.dump.startswith("influxdb") or service.kind is Kind.SKIP
        if influx in service.containers and not dumped:
            found.append(
                f"{where}: {influx} is dumped already, because [influxdb] container names it"
            )
        found += [
            f"{where}: there is no service {other!r} to come first"
            for other in service.first
            if other not in known
        ]
    return found + row_conflicts(sound)


def _skips_all(service: Service) -> Iterator[str]:
    """Yield the paths of a row with skip that would leave out more than any service has."""
    for path in service.paths if service.kind is Kind.SKIP else ():
        for folder in FOLDERS:
            if fits_all_of(path, f"{folder}/{ANY_NAME}"):
                yield (
                    f"path {path!r} leaves out all of {folder}/; name only the folders of this "
                    "service, or use [[stack.exclude]] to leave out everything"
                )


def _ssh_mistakes(where: str, each: Mapping[str, Any]) -> list[str]:
    found = []
    name, _, port = each.get("host", "").rpartition(":")
    with_port = name and ":" not in name and port.isascii() and port.isdecimal()
    if with_port and not (len(port) < 6 and 0 < int(port) <= MOST_PORT):  # noqa: PLR2004
        found.append(f"{where}: the port of host {each['host'][:MOST_SHOWN]!r} {_PORTS}")
    if not 0 <= each.get("port", 0) <= MOST_PORT:
        found.append(f"{where}: port = {each['port']} {_PORTS}")
    if each.get("host", "").startswith("-") or each.get("user", "").startswith("-"):
        found.append(f"{where}: host and user cannot begin with '-'")
    return found
