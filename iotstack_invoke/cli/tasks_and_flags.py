"""The tasks: the name, flags and help of each. No logic.

`inv` finds them through tasks.py in the checkout; the installed program is `iotstack`.
"""

from __future__ import annotations

from collections.abc import Iterable

from invoke.collection import Collection

from ..core.errors import UsageError
from .shared_task import TaskContext, shared_task


@shared_task(
    watched=True,
    runs=True,
    fleet=True,
    values={"runtag": "<runtags>"},
    help={"runtag": "Name the backup. Default: the current time, such as 2026-11-23_1100."},
)
def backup(work: TaskContext, host: str = "", runtag: str | None = None) -> int:
    """Back up the stack, verify it, and copy it to every vault."""
    from ..commands.backup.backup import back_up

    return back_up(work.settings, runtag, work.options, work.report, host)


@shared_task(
    watched=True,
    fleet=True,
    values={"to": "<vaults>"},
    help={
        "runtag": "Fetch this backup. Default: all that are missing.",
        "to": 'Fetch into this vault. Default: the only vault with kind = "folder".',
        "dry-run": "Show what would be fetched; change nothing.",
    },
)
def pull(
    work: TaskContext,
    host: str = "",
    runtag: str | None = None,
    to: str = "",
    dry_run: bool = False,
) -> int:
    """Fetch finished backups from another machine into a folder of this one."""
    from ..commands.pull import PullRequest, pull_sets

    request = PullRequest(host, runtag or "", to, dry_run or work.options.dry_run)
    return pull_sets(work.settings, request, work.report)


@shared_task(
    watched=True,
    iterable=["vault"],
    values={"vault": "<vaults>"},
    help={
        "vault": "Upload to this vault only; repeatable. Default: every vault.",
        "dry-run": "Show what would be uploaded; change nothing.",
    },
)
def sync(work: TaskContext, vault: Iterable[str] | None = None, dry_run: bool = False) -> int:
    """Copy this machine's backups to the vaults that are missing them; exit 3 if one still is."""
    from ..commands.vaults.sync import sync as sync_vaults

    dry = dry_run or work.options.dry_run
    return sync_vaults(work.settings, tuple(vault or ()), work.report, dry_run=dry)


@shared_task(name="list", help={"json": "Print JSON for programs."})
def list_(work: TaskContext, json: bool = False) -> int:
    """List the backups here and in the vaults: age, size, parts, state."""
    from ..commands.catalog.listing import list_backups

    return list_backups(work.settings, work.report, as_json=json)


@shared_task(
    watched=True,
    iterable=["allow_missing"],
    values={"at": "here vault all <vaults>", "allow-missing": "<parts> <services>"},
    help={
        "at": "Prune here (the default), vault (every vault), one vault by name, or all.",
        "keep": "Keep this many of the newest good backups.",
        "keep-daily": "Keep the newest good backup of each of this many days.",
        "keep-weekly": "Keep the newest good backup of each of this many weeks.",
        "keep-monthly": "Keep the newest good backup of each of this many months.",
        "keep-yearly": "Keep the newest good backup of each of this many years.",
        "keep-within": "Keep all backups from this long before the newest good one: 30d, 6mo, "
        "1y2mo.",
        "keep-at-least": "Keep at least this many good backups, whatever the other rules say.",
        "allow-missing": "Accept that this part, container or database is gone for good, such as "
        "influx; repeatable.",
        "adopt": "Include archives without a manifest if they can be read completely.",
        "undelivered": "Also remove backups here that are missing in a vault, or may be because "
        "it is unreachable.",
        "yes": "Do not ask for confirmation.",
        "dry-run": "Show what would be removed, and why; change nothing.",
        "json": "Print JSON for programs.",
    },
)
def prune(
    work: TaskContext,
    at: str = "here",
    keep: str = "",
    keep_daily: str = "",
    keep_weekly: str = "",
    keep_monthly: str = "",
    keep_yearly: str = "",
    keep_within: str = "",
    keep_at_least: str = "",
    allow_missing: Iterable[str] | None = None,
    adopt: bool = False,
    undelivered: bool = False,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Remove old backups by the policy in hosts.toml, or by the policy in these flags."""
    from ..backups.retention import POLICY_KEYS
    from ..commands.catalog.prune import PruneRequest
    from ..commands.catalog.prune import prune as prune_sets

    numbers = (keep, keep_daily, keep_weekly, keep_monthly, keep_yearly)
    flags = dict(zip(POLICY_KEYS, (*numbers, keep_within, keep_at_least), strict=True))
    dry = dry_run or work.options.dry_run
    request = PruneRequest(at, tuple(allow_missing or ()), adopt, undelivered, yes, dry, json)
    return prune_sets(work.settings, request, flags, work.report)


@shared_task(
    latest=True,
    values={"runtag": "<runtags> latest"},
    help={
        "runtag": "Pin this backup. Default: latest, the newest.",
        "note": "Note the reason, in one line.",
        "remove": "Remove the pin instead.",
    },
)
def pin(work: TaskContext, runtag: str, note: str = "", remove: bool = False) -> int:
    """Pin a backup: never remove it, here or in any vault that has it."""
    from ..commands.catalog.pin import pin as pin_set
    from ..commands.catalog.pin import unpin

    if remove:
        return unpin(work.settings, runtag, work.report)
    return pin_set(work.settings, runtag, note, work.report)


@shared_task(
    watched=True,
    opens=True,
    values={"runtag": "<runtags> latest", "at": "here vault all <vaults>"},
    help={
        "runtag": "Verify this backup. Default: latest, the newest.",
        "all": "Verify every backup.",
        "newest": "Verify the newest backup.",
        "sample": "Verify this share of each place, such as 5%, beginning with what was read "
        "longest ago: 20 such runs read all.",
        "at": "Verify here (the default if it has backups), one vault by name, vault (every "
        "vault), or all.",
        "json": "Print JSON for programs.",
    },
)
def verify(
    work: TaskContext,
    runtag: str | None = None,
    all: bool = False,  # noqa: A002 - it is the flag's name
    newest: bool = False,
    at: str = "",
    json: bool = False,
    sample: str = "",
) -> int:
    """Read backups again, compare them with their manifests, and record the result."""
    from ..commands.catalog.verify import Wanted, read_percent
    from ..commands.catalog.verify import verify as verify_backups

    wanted = Wanted(runtag or "", all, newest, at, read_percent(sample))
    return verify_backups(work.settings, wanted, work.report, as_json=json)


@shared_task(
    opens=True,
    latest=True,
    values={"runtag": "<runtags> latest", "files": "<parts>", "at": "here vault <vaults>"},
    help={
        "runtag": "Select the backup. Default: latest, the newest.",
        "files": "List the files of one part instead. Parts: inv show RUNTAG.",
        "at": "Look here, in one vault by name, or in vault (every vault). Default: the first "
        "that has it.",
        "json": "Print JSON for programs; with --files one object per line.",
    },
)
def show(work: TaskContext, runtag: str, files: str = "", at: str = "", json: bool = False) -> int:
    """Show one backup: its content, how it was made, what was left out, and its copies."""
    from ..commands.catalog.show import show as show_backup
    from ..commands.catalog.show import show_files

    if files:
        return show_files(work.settings, runtag, files, at, work.report, as_json=json)
    return show_backup(work.settings, runtag, at, work.report, as_json=json)


@shared_task(
    opens=True,
    values={
        "before": "<runtags> latest",
        "after": "<runtags> latest",
        "at": "here vault <vaults>",
    },
    help={
        "before": "Compare this backup; latest is the newest.",
        "after": "Compare with this backup.",
        "at": "Look here, in one vault by name, or in vault (every vault). Default: the first "
        "that has each.",
        "json": "Print JSON for programs.",
    },
)
def diff(work: TaskContext, before: str, after: str, at: str = "", json: bool = False) -> int:
    """Compare two backups: files, databases and shards that were added, removed or changed."""
    from ..commands.catalog.diff import diff as diff_backups

    return diff_backups(work.settings, before, after, at, work.report, as_json=json)


@shared_task(
    watched=True,
    opens=True,
    values={"runtag": "<runtags> latest", "at": "here <vaults>"},
    help={
        "runtag": "Select the backup; latest is the newest.",
        "at": "Rehearse the copy here or in this vault. Default: the first vault, if there is "
        "one.",
    },
)
def rehearse(work: TaskContext, runtag: str = "latest", at: str = "") -> int:
    """Test a restore in a scratch folder and separate databases, then remove them."""
    from ..commands.restore.rehearse import rehearse as rehearse_restore

    return rehearse_restore(work.settings, runtag, at, work.report)


@shared_task(
    opens=True,
    values={"what": "new sheet check", "at": "<vaults>"},
    help={
        "what": "Write new to make a key, sheet to print a recovery sheet, or check to test the "
        "key.",
        "at": "With check: test this vault. Default: every vault.",
    },
)
def key(work: TaskContext, what: str, at: str = "") -> int:
    """Make the key for encrypted copies, print a recovery sheet, or test the key."""
    from ..commands.catalog.key import check_key, make_key, write_sheet

    identity = work.options.identity
    if what == "check":
        return check_key(work.settings, identity, at, work.report)
    ways = {"new": make_key, "sheet": write_sheet}
    if what not in ways:
        raise UsageError(f"inv key {what}: use new, sheet or check.")
    return ways[what](work.settings, identity, work.report)


@shared_task(
    values={"format": "tree mermaid dot"},
    help={"format": "Choose the format: tree, mermaid or dot."},
)
def graph(work: TaskContext, format: str = "tree") -> None:  # noqa: A002 - it is the flag's name
    """Draw how the files of a backup are made."""
    from ..commands.backup.why import show_graph

    show_graph(work.settings, work.report, format)


@shared_task(
    values={"file": "<backup-files>"},
    help={
        "file": "Name a file of a backup by its path in the stack's folder, such as "
        "backups/2026-11-23_1100.general-backup.tar.gz, or nas:NAME for one in a vault.",
        "json": "Print JSON for programs.",
    },
)
def why(work: TaskContext, file: str, json: bool = False) -> None:
    """Explain how a file is made, from what, and whether it would be made now."""
    from ..commands.backup.why import show_why

    show_why(work.settings, work.report, file, as_json=json)


@shared_task(
    watched=True,
    opens=True,
    runs=True,
    fleet=True,
    iterable=["only", "live"],
    values={
        "runtag": "<runtags> latest",
        "from": "vault here <vaults> <files>",
        "only": "<services>",
        "live": "<hosts>",
    },
    help={
        "runtag": "Restore this backup; latest is the newest.",
        "from": "Restore from vault (the default), one vault by name, here (on the target), or a "
        "folder.",
        "only": "Restore only this service; repeatable.",
        "live": "Repeat the name of a live host to confirm; repeatable.",
        "compose": "Replace the compose file and .env on the target by those of the backup.",
        "bare": "For a new machine: create the folder, use the backup's compose file, start "
        "everything.",
        "exact": "Move aside databases, users and folders that the backup does not have. "
        "Default: keep.",
        "strict": "Roll back if any container does not start. Default: only if a database's does "
        "not.",
        "yes": "Do not ask for confirmation.",
    },
)
def restore(
    work: TaskContext,
    runtag: str = "latest",
    host: str = "",
    from_: str = "",
    only: Iterable[str] | None = None,
    live: Iterable[str] | None = None,
    compose: bool = False,
    bare: bool = False,
    exact: bool = False,
    strict: bool = False,
    yes: bool = False,
) -> int:
    """Restore a backup: check it before the switch, verify it after, roll back on failure."""
    from ..commands.restore.request import RestoreRequest
    from ..commands.restore.restore import restore as restore_backup

    names = tuple(dict.fromkeys(only or ())), tuple(live or ())
    if names[0] and (compose or bare):
        raise UsageError("--compose and --bare restore the whole stack: remove --only.")
    request = RestoreRequest(
        runtag, host, from_, *names, yes, strict, compose or bare, bare, exact
    )
    return restore_backup(work.settings, request, work.options, work.report)


@shared_task(
    watched=True,
    name="reload-influxdb",
    values={"host": "<hosts>"},
    help={
        "host": "Use this host of hosts.toml. Default: this machine.",
        "keep-old": "Keep the old data for this many days. Default: until you remove them.",
        "count": "Count all values before and after (the default); --no-count is faster.",
        "yes": "Do not ask for confirmation.",
        "dry-run": "Show every step and its commands; change nothing.",
    },
)
def reload_influxdb(
    work: TaskContext,
    host: str | None = None,
    keep_old: str = "",
    count: bool = True,
    yes: bool = False,
    dry_run: bool = False,
) -> int:
    """Rebuild InfluxDB from a verified dump; roll back on failure."""
    from ..commands.restore.reload import Reload, read_days
    from ..commands.restore.reload import reload_influxdb as reload_data

    asked = Reload(host or "", read_days(keep_old), count, yes)
    dry = dry_run or work.options.dry_run
    return reload_data(work.settings, asked, work.report, dry_run=dry)


@shared_task(
    values={"host": "<hosts>"},
    help={
        "host": "Use this host of hosts.toml. Default: this machine.",
        "list": "List the data that restores replaced: date, size, how long they stay.",
        "leave-gone": "If some old data were removed, undo the rest and leave those as they are "
        "now.",
        "last-restore": "With --yes: undo the last restore or reload even if it succeeded.",
        "yes": "Do not ask; without --last-restore undo only an interrupted restore or reload.",
        "json": "With --list: print JSON for programs.",
    },
)
def undo(
    work: TaskContext,
    host: str | None = None,
    last_restore: bool = False,
    leave_gone: bool = False,
    yes: bool = False,
    list: bool = False,  # noqa: A002 - the name of the flag
    json: bool = False,
) -> int:
    """Undo an interrupted restore or reload, or go back to before the last one."""
    if list:
        from ..commands.undo.state_list import list_states

        return list_states(work.settings, host or "", work.report, as_json=json)
    if json:
        raise UsageError("inv undo: --json works with --list only.")
    from ..commands.undo.undo import undo as undo_restore

    asked = {"yes": yes, "last_restore": last_restore, "leave_gone": leave_gone}
    return undo_restore(work.settings, host or "", work.report, **asked)


@shared_task(
    values={"trust": "<hosts> <vaults>"},
    help={
        "trust": "Show the key of this host or vault, ask, and add it to known_hosts.",
        "yes": "Do not ask for confirmation.",
        "json": "Print JSON for programs.",
    },
)
def hosts(work: TaskContext, trust: str = "", yes: bool = False, json: bool = False) -> int:
    """List the hosts of hosts.toml: reachable, key known, ready for a restore, free space."""
    from ..commands.doctor.hosts import list_hosts, trust_host

    if trust:
        return trust_host(work.settings, trust, work.report, yes=yes)
    return list_hosts(work.settings, work.report, as_json=json)


@shared_task(
    fleet=True,
    help={
        "json": "Print JSON for programs.",
    },
)
def doctor(work: TaskContext, host: str = "", json: bool = False) -> int:
    """Find problems that would make a backup fail, and suggest fixes."""
    from ..commands.doctor.doctor import tell_findings

    return tell_findings(work.settings, host, work.report, as_json=json)


@shared_task(help={"json": "Print JSON for programs."})
def services(work: TaskContext, json: bool = False) -> int:
    """Show how a backup saves each container's data; exit 3 if some are not saved."""
    from ..commands.backup.services import list_services

    return list_services(work.settings, work.report, as_json=json)


@shared_task(
    monitored=True,
    fleet=True,
    values={"at": "here <vaults>"},
    help={
        "max-age": "Allow this age of the newest good backup, such as 26h, 90min (or 90m) or 2d.",
        "at": "Check only here, or only this vault. Default: every place.",
        "json": "Print JSON for programs, with the state of each place.",
    },
)
def status(
    work: TaskContext, host: str = "", max_age: str = "26h", at: str = "", json: bool = False
) -> int:
    """Check for a recent good backup: one line for a monitor; exit 0, 1 or 2."""
    from ..commands.catalog.status import tell_status

    return tell_status(work.settings, max_age, at, work.report, host, as_json=json)


@shared_task(
    founds=True,
    values={
        "stack": "<files>",
        "copies": "none <files> <text>",
        "keep-copies": "none <text>",
        "at": "never <text>",
        "notify": "none <text>",
        "mqtt": "yes no",
    },
    help={
        "stack": "Use the stack in this folder.",
        "copies": "Copy backups to this folder, to ssh:USER@HOST:FOLDER or rclone:REMOTE:FOLDER; "
        "or none.",
        "keep": "Keep this many of the newest backups on this machine, or by rules such as "
        "5,daily=7,weekly=4.",
        "keep-copies": "Keep the new copies by these rules, or all of them: none. Default: "
        "daily=14,monthly=12.",
        "at": "Back up each day at this time, such as 03:00; or never.",
        "notify": "Report problems by ntfy:URL or ping:URL; or none. In place of the URL, "
        "which other users could see, name a file that holds it.",
        "mqtt": "Show the backups in Home Assistant through the stack's Mosquitto: yes or no. "
        "Default for a new hosts.toml: yes, if Mosquitto asks for no login.",
        "first-backup": "Make a backup at the end.",
        "yes": "Do not ask: what no flag says stays as it is.",
    },
)
def init(
    work: TaskContext,
    stack: str = "",
    copies: str = "",
    keep: str = "",
    keep_copies: str = "",
    at: str = "",
    notify: str = "",
    mqtt: str = "",
    first_backup: bool = False,
    yes: bool = False,
) -> int:
    """Set this machine up: find the stack and places for copies, ask, write hosts.toml."""
    from ..commands.init import set_up
    from ..commands.setup.questions import InitFlags

    given = InitFlags(stack, copies, keep, keep_copies, at, notify, mqtt)
    return set_up(work.settings, given, work.options, work.report, backs_up=first_backup, yes=yes)


@shared_task(name="show", group="config", default=True, help={"json": "Print JSON for programs."})
def config_show(work: TaskContext, json: bool = False) -> int:
    """Show each setting with the value that counts, and whether it is the default."""
    from ..commands.setup.config import show_config

    return show_config(work.settings, work.report, as_json=json)


@shared_task(name="check", group="config", help={"json": "Print JSON for programs."})
def config_check(work: TaskContext, json: bool = False) -> int:
    """Check hosts.toml: all its mistakes at once, and exit 2."""
    from ..commands.setup.config import check_config

    return check_config(work.settings, work.report, as_json=json)


@shared_task(name="schema", group="config")
def config_schema(work: TaskContext) -> int:
    """Print the JSON Schema of hosts.toml, with which editors check it."""
    from ..commands.setup.config import print_schema

    return print_schema(work.report)


@shared_task(
    help={
        "test": "Send a test by each notifier of hosts.toml.",
        "unit": "Tell that this unit of systemd failed: for OnFailure= alone.",
    }
)
def notify(work: TaskContext, test: bool = False, unit: str = "") -> int:
    """Test the notifications of hosts.toml: a message to your phone, a ping to a monitor."""
    from ..commands.monitoring.notify import notify_unit, test_notifiers

    if unit:
        return notify_unit(work.settings, unit, work.report)
    if not test:
        raise UsageError("inv notify: add --test to send a test by each notifier.")
    return test_notifiers(work.settings, work.report)


@shared_task(
    help={
        "max-age": "Allow this age of the newest good backup, such as 26h, 90min or 2d.",
        "vaults": "Look at the vaults too; --no-vaults: as the last backup found them.",
        "json": "Print all problems that go on as JSON for programs.",
    }
)
def monitor(
    work: TaskContext, max_age: str = "26h", vaults: bool = True, json: bool = False
) -> int:
    """Look for problems, and tell of new ones; update Home Assistant and metrics."""
    from ..commands.monitoring.monitor import monitor as look_once

    return look_once(work.settings, max_age, work.report, look_at_vaults=vaults, as_json=json)


@shared_task(
    values={"dashboard": "influxdb prometheus"},
    help={
        "dashboard": "Print Grafana's dashboard for this source of data instead: influxdb or "
        "prometheus.",
        "max-age": "Allow this age of the newest good backup, such as 26h, 90min or 2d.",
    },
)
def metrics(work: TaskContext, dashboard: str = "", max_age: str = "26h") -> int:
    """Print the metrics as Prometheus reads them, or a dashboard for Grafana."""
    from ..commands.monitoring.metrics import print_dashboard, print_metrics

    if dashboard:
        return print_dashboard(dashboard, work.report)
    return print_metrics(work.settings, max_age, work.report)


@shared_task()
def listen(work: TaskContext) -> int:
    """Wait for the button in Home Assistant, and start a backup when it is pressed."""
    from ..commands.monitoring.listen import listen as listen_for_button

    return listen_for_button(work.settings, work.report)


@shared_task(
    name="install",
    group="schedule",
    iterable=["credential"],
    values={
        "rehearse": "daily weekly monthly never",
        "verify": "daily weekly monthly never",
        "prune": "daily weekly monthly never",
    },
    help={
        "at": "Back up each day at this time. The other tasks begin one to three hours later.",
        "rehearse": "Rehearse a restore: daily, weekly (the default), monthly or never.",
        "verify": "Read all backups here again: daily, weekly, monthly (the default) or never.",
        "prune": "Remove old backups by the settings, here and in the vaults: daily, weekly, "
        "monthly or never (the default).",
        "random-delay": "Begin up to this much later, such as 30min: always as much on one "
        "machine. For several machines that share a vault.",
        "listen": "Install the listener for Home Assistant's button too.",
        "credential": "Give the file to the runs as a credential of systemd, NAME:FILE; "
        "repeatable.",
        "user": "Use this user's systemd (the default, except for root).",
        "system": "Use the system's systemd (the default for root).",
        "cron": "Use this user's crontab (the default without systemd).",
        "dry-run": "Show the units or lines; change nothing.",
    },
)
def schedule_install(
    work: TaskContext,
    at: str = "03:00",
    rehearse: str = "weekly",
    verify: str = "monthly",
    prune: str = "never",
    random_delay: str = "",
    listen: bool = False,
    credential: Iterable[str] | None = None,
    user: bool = False,
    system: bool = False,
    cron: bool = False,
    dry_run: bool = False,
) -> int:
    """Let this machine back up by itself: timers of systemd, or lines of cron."""
    from ..commands.setup.schedule import install, read_request

    every = {"rehearse": rehearse, "verify": verify, "prune": prune}
    kinds = {"user": user, "system": system, "cron": cron}
    request = read_request(
        at,
        every,
        random_delay,
        kinds,
        listens=listen,
        credentials=tuple(credential or ()),
        dry_run=dry_run or work.options.dry_run,
    )
    return install(work.settings, request, work.report)


@shared_task(
    name="show", group="schedule", default=True, help={"json": "Print JSON for programs."}
)
def schedule_show(work: TaskContext, json: bool = False) -> int:
    """Show each scheduled task: its next run, when the last one ended, and how."""
    from ..commands.setup.schedule import show_schedule

    return show_schedule(work.settings, work.report, as_json=json)


@shared_task(name="remove", group="schedule")
def schedule_remove(work: TaskContext) -> int:
    """Remove the timers or lines that schedule.install made, and nothing else."""
    from ..commands.setup.schedule import remove_schedule

    return remove_schedule(work.settings, work.report)


@shared_task()
def demo(work: TaskContext) -> int:
    """Back up a sample stack, break it, restore it, and show the result."""
    from ..commands.demo import show_demo

    return show_demo(work.report)


namespace = Collection(
    init,
    backup,
    sync,
    pull,
    restore,
    reload_influxdb,
    undo,
    hosts,
    doctor,
    services,
    status,
    notify,
    monitor,
    metrics,
    listen,
    list_,
    show,
    diff,
    verify,
    rehearse,
    key,
    prune,
    pin,
    graph,
    why,
    demo,
    config=Collection("config", config_show, config_check, config_schema),
    schedule=Collection("schedule", schedule_install, schedule_show, schedule_remove),
)
