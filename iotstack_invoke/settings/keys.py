"""The keys of hosts.toml: one table for checking, documenting, and the JSON Schema of editors.

Pure. docs/settings.py writes the tables of docs/reference/hosts-toml.md from it. What one key
alone does not tell, such as two rows of one name, is checked in validation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..backups.retention import MOST_SETS
from ..core.dataclass import dataclass
from ..services.known import KINDS, PART_OF_DUMP

ROLES = ("live", "test")
FLAT, BY_HOST = "flat", "by-host"
VAULT_KINDS = ("ssh", "folder", "rclone")
MOST_DAYS = 99_999
"""The limit for keeping replaced data: over two centuries, which is still a valid date."""
MOST_SECONDS = 366 * 86_400
"""The limit for a time limit: a year. Threads and programs cannot count arbitrary seconds."""
MOST_PORT = 65_535
SECONDS = (int, float)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table: its type, its meaning in Markdown, and the values it may have."""

    type: type | tuple[type, ...]
    meaning: str
    default: Any = None
    """The value of a missing key, as TOML has it; None if `without` says what is done then."""
    without: str = "none"
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    needed: bool = False
    kinds: tuple[str, ...] = ()
    """The kinds of vaults that have it; all, if there is none."""
    shown: str = ""
    """Its type in words, if the values do not tell."""
    items: str = ""
    """The table of which it is a list, for a list of tables."""
    secret: bool = False
    """It is never shown."""


def _rule(meaning: str, default: int | None = 0, *, least: int = 0, without: str = "none") -> Key:
    return Key(int, meaning, default, without, least=least, most=MOST_SETS)


POLICY: Mapping[str, Key] = {
    "keep": _rule(
        "How many of the newest good backups stay.",
        None,
        without="5 in `[stack]` and `[[hosts]]` if they have no other rule, else 0",
    ),
    "keep_daily": _rule("For this many days, the newest good backup of each day."),
    "keep_weekly": _rule("Likewise for weeks."),
    "keep_monthly": _rule("Likewise for months."),
    "keep_yearly": _rule("Likewise for years."),
    "keep_within": Key(
        str,
        'All backups from this long before the newest good one: `"30d"`, `"6mo"`, `"1y2mo"` (y, '
        "mo for months, w, d, h, in this order; `m` also means months here).",
        shown="time span",
    ),
    "keep_at_least": _rule(
        "This many good backups stay, whatever the other rules say.", 1, least=1
    ),
}


def _listed(values: tuple[str, ...]) -> str:
    """Return a list of these values, in Markdown."""
    return f"list of {', '.join(f'`{each!r}`' for each in values)}".replace("'", '"')


def _secret(name: str, meaning: str) -> dict[str, Key]:
    """Return the three keys of a secret: itself, a file with it, a program that prints it."""
    return {
        name: Key(
            str, f"{meaning} With it, `hosts.toml` must be readable by you alone.", secret=True
        ),
        f"{name}_file": Key(
            str,
            f"The file with the {name}, its first line. A name without `/` is one of systemd's "
            "credentials (`LoadCredential=`).",
        ),
        f"{name}_command": Key(
            list, f"The program that prints the {name}, and its arguments: a list of words."
        ),
    }


SECRETS = ("url", "token", "password")
"""The keys that may also be given as `…_file` or `…_command`."""
WATCHED = (
    "backup",
    "sync",
    "pull",
    "prune",
    "verify",
    "rehearse",
    "restore",
    "reload-influxdb",
    "monitor",
)
"""The tasks with notifications; those of monitor are about problems outside of runs."""
NOTIFY_KINDS = ("ping", "ntfy", "apprise")
OCCASIONS = ("failure", "warning", "recovered", "always")
SSH: Mapping[str, Key] = {
    "host": Key(
        str,
        "A name or alias that `ssh` knows; `host:port` works too.",
        without="required",
        kinds=("ssh",),
    ),
    "user": Key(str, "The user who logs in.", without="what `ssh` uses", kinds=("ssh",)),
    "port": Key(
        int,
        "The port of sshd.",
        without="what `ssh` uses",
        least=0,
        most=MOST_PORT,
        kinds=("ssh",),
        shown=f"1 to {MOST_PORT}",
    ),
    "key": Key(str, "The file of a private key.", without="what `ssh` uses", kinds=("ssh",)),
    "ssh_config": Key(
        str, "A file to use instead of `~/.ssh/config`.", without="what `ssh` uses", kinds=("ssh",)
    ),
    "known_hosts": Key(
        str,
        "A file to use instead of `~/.ssh/known_hosts`.",
        without="what `ssh` uses",
        kinds=("ssh",),
    ),
}
_OF_ANY_STACK: Mapping[str, Key] = {
    "adopt": Key(
        bool,
        "Let the retention remove archives without a manifest. Each is read to its end first.",
        False,
    ),
    "sudo": Key(
        bool,
        "Run tar as `sudo -n tar`. Set it to false only if every file of the stack belongs to "
        "you.",
        True,
    ),
    "role": Key(
        str,
        "A restore to a `live` machine must be confirmed with `--live this`.",
        "test",
        choices=ROLES,
    ),
    "exclude": Key(list, "See [`[[stack.exclude]]`](#stackexclude).", items="exclude"),
    "exclude_defaults": Key(
        bool,
        "Leave out data that a backup does not need: see "
        "[formats](formats.md#left-out-by-default). `false` packs all of it.",
        True,
    ),
    "include": Key(list, "See [`[[stack.include]]`](#stackinclude).", items="include"),
}
TABLES: Mapping[str, Mapping[str, Key]] = {
    "stack": {
        "folder": Key(
            str,
            "The folder of the stack. It begins with `/` or `~`. Backups are in `backups/` below "
            "it.",
            "~/IOTstack",
        ),
        **POLICY,
        "keep_previous": Key(
            int,
            "How many states from before a restore stay, whatever their age.",
            1,
            least=0,
            most=MOST_DAYS,
        ),
        "keep_previous_days": Key(
            int,
            "States from before a restore stay for at least this many days.",
            14,
            least=0,
            most=MOST_DAYS,
        ),
        **_OF_ANY_STACK,
    },
    "exclude": {
        "path": Key(
            str,
            "A path in the stack's folder, an absolute path, or `volume:NAME`, or a path below "
            "one of these. `*` matches `/` too.",
            needed=True,
        ),
        "reason": Key(str, "Why it may be left out.", needed=True),
    },
    "include": {
        "path": Key(
            str,
            "A path in the stack's folder, or an absolute path. Not `/`, `/proc`, `/sys`, or "
            "Docker's own folder.",
            needed=True,
        ),
        "restore_to": Key(
            str,
            "Where a restore puts it. Only for an absolute `path`.",
            without="`path`",
            shown="absolute path",
        ),
    },
    "influxdb": {
        "container": Key(str, "The name of its container.", "influxdb"),
        "limit_s": Key(
            SECONDS,
            "A dump that takes longer is stopped and counts as failed.",
            3600,
            most=MOST_SECONDS,
            shown="seconds, at most a year",
        ),
    },
    "services": {
        "name": Key(str, "The name of the service.", needed=True, shown="one word"),
        "kind": Key(
            str,
            "How its data are saved.",
            without="required for a new service",
            choices=tuple(KINDS),
            shown="see below",
        ),
        "dump": Key(
            str,
            'For `kind = "dump"`: the kind of database.',
            choices=tuple(PART_OF_DUMP),
        ),
        "images": Key(list, "The images that this row applies to, without registry and tag."),
        "containers": Key(list, "Exact names of its containers.", without="its name"),
        "paths": Key(
            list,
            "Where its data are in the stack's folder; `[]` if it has no data.",
            without="`volumes/NAME`",
        ),
        "data": Key(
            list,
            "Where its data are inside the container. If nothing is mounted there, `backup` names "
            "it.",
        ),
        "first": Key(list, "Services that are restored before it."),
        "leave_out": Key(
            list,
            'Paths that a backup does not need: `{ inside = "/data/cache", reason = "…" }`, as '
            "the container sees the path. `[]` packs everything.",
            without="as in the package's table",
            items="leave_out",
        ),
        "reason": Key(str, 'Required for `kind = "skip"`.'),
        "notes": Key(str, "A note for you, shown by `iotstack services`."),
    },
    "leave_out": {
        "inside": Key(str, "A path as the container sees it.", needed=True),
        "reason": Key(str, "Why no backup needs it.", needed=True),
    },
    "vaults": {
        "name": Key(
            str,
            "Letters, digits, `_` and `-`; begins with a letter. Not `here`, `vault`, `all`, "
            "`pi`, `from`, `dump` or `media`.",
            needed=True,
        ),
        "kind": Key(
            str,
            "Another machine over SSH, a folder of this machine, or a cloud.",
            choices=VAULT_KINDS,
            needed=True,
        ),
        "folder": Key(
            str,
            "The folder must exist: the program never makes it. Over SSH, a relative path begins "
            "in the home of the user who logs in.",
            without="required",
            kinds=("ssh", "folder"),
        ),
        "mount": Key(
            str,
            "The mount point of the drive. While nothing is mounted there, nothing is written. "
            "Not needed if `/etc/fstab` names the mount point.",
            kinds=("folder",),
        ),
        "remote": Key(
            str,
            "A remote of `rclone config`, a colon, and a folder in it. The first copy makes the "
            "folder.",
            without="required",
            kinds=("rclone",),
        ),
        "write_once": Key(
            bool,
            "Nothing can be removed or replaced there: see [add a cloud]"
            "(../how-to/cloud.md#a-bucket-that-nothing-can-be-removed-from). Not with retention "
            "keys.",
            False,
            kinds=("rclone",),
        ),
        "layout": Key(
            str,
            "`by-host`: a folder for each machine, named after its host name.",
            FLAT,
            choices=(FLAT, BY_HOST),
        ),
        "limit_rate": Key(
            str,
            'Bytes a second, in both directions: `"500K"`, `"2M"`. Or a timetable: `"08:00,512K '
            '23:00,off"`; with days: `"Mon-08:00,512K Fri-18:00,off"`.',
            without="no limit",
        ),
        "recipients": Key(
            list,
            "Public keys of age or SSH. Copies are encrypted for them: see [encrypt copies]"
            "(../how-to/encrypt.md).",
        ),
        **SSH,
        **POLICY,
    },
    "hosts": {
        "name": Key(
            str,
            "Its name on this machine. In vaults, its host name counts (`uname -n`).",
            needed=True,
        ),
        "folder": Key(str, "The folder of its stack.", "~/IOTstack"),
        "machine_id": Key(
            str, "The text of its `/etc/machine-id`. A machine with another id is refused."
        ),
        "hooks": Key(dict, "The same as [`[hooks]`](#hooks); they run on that machine."),
        **_OF_ANY_STACK,
        "role": Key(
            str,
            "A restore to a `live` host must be confirmed with `--live NAME`.",
            "test",
            choices=ROLES,
        ),
        **SSH,
        "host": replace(SSH["host"], needed=True),
        **POLICY,
    },
    "hooks": {
        name: Key(
            list,
            "A hook is a list of words, or a table with the keys of the next table.",
            items="hook",
        )
        for name in ("before_backup", "after_backup", "before_restore", "after_restore")
    },
    "hook": {
        "run": Key(
            list,
            "The program and its arguments. The program is a name, or a full path.",
            needed=True,
        ),
        "limit_s": Key(
            SECONDS,
            "After this time the hook is stopped, and counts as failed.",
            60,
            most=MOST_SECONDS,
            shown="seconds, at most a year",
        ),
        "may_fail": Key(bool, "A failure is a warning only.", False),
    },
    "notify": {
        "name": Key(str, "Your name for it, which messages have.", needed=True),
        "kind": Key(
            str,
            "`ping` tells a monitor of runs that each run began, and how it ended: "
            "healthchecks.io, Uptime Kuma. `ntfy` sends a message by ntfy. `apprise` sends it by "
            "e-mail, Telegram, Matrix and about 100 others.",
            choices=NOTIFY_KINDS,
            needed=True,
        ),
        **_secret("url", "Where it is sent. One of the three keys is needed."),
        **_secret("token", "For `ntfy`: the access token."),
        "tasks": Key(
            list,
            "The tasks whose runs it is for. A monitor that expects a ping each day should not be "
            "content with the ping of another task.",
            without="for `ping` `backup`, else all",
            choices=WATCHED,
            shown="list of names of tasks",
        ),
        "on": Key(
            list,
            "When to send: after a run that failed, after one with warnings, when all is good "
            "again, or after each run.",
            without="for `ping` `always`, else all others",
            choices=OCCASIONS,
            shown=_listed(OCCASIONS),
        ),
    },
    "mqtt": {
        "host": Key(str, "The broker.", without="the stack's own Mosquitto"),
        "port": Key(int, "The port of the broker.", 1883, least=1, most=MOST_PORT),
        "user": Key(str, "The user who logs in to the broker.", without="no login"),
        **_secret("password", "The password of that user."),
        "tls": Key(bool, "Encrypt the connection.", False),
        "ca_file": Key(
            str, "The certificates to trust.", without="those of the system", shown="path"
        ),
        "prefix": Key(str, "Where Home Assistant expects new devices.", "homeassistant"),
        "silent_after": Key(
            str,
            "After this time without news Home Assistant shows the entities as unavailable.",
            "26h",
            shown="time span",
        ),
        "allow_start": Key(
            bool,
            "Let a button of Home Assistant start a backup. Whoever may write to the broker may "
            "press it.",
            False,
        ),
    },
    "metrics": {
        "textfile": Key(
            str,
            "The file for the textfile collector of Prometheus' node_exporter. Its name ends "
            "with `.prom`.",
            shown="path",
        ),
        "influxdb": Key(
            bool, "Write into a database `iotstack_backup` of the stack's own InfluxDB 1.", False
        ),
        "user": Key(
            str,
            "The user who writes there.",
            without="`INFLUXDB_ADMIN_USER` of its container, if there is one",
        ),
        **_secret("password", "The password of that user."),
        "retention": Key(str, "How long that database keeps values.", "104w", shown="time span"),
    },
}
"""The keys of each table by their names."""
TOP = ("stack", "influxdb", "vaults", "hosts", "services", "hooks", "notify", "mqtt", "metrics")
"""The tables at the top of the file."""
ROWS = ("vaults", "hosts", "services", "notify")
"""Those that may be given any number of times, each in double brackets."""
SINGLE = tuple(name for name in TOP if name not in ROWS)
PLAIN_KEYS = frozenset(
    name for table in TABLES.values() for name, key in table.items() if not key.secret
) - {"run", *TABLES["hooks"], *(f"{name}_command" for name in SECRETS)}
"""The keys whose values a message may quote."""
