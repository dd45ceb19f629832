"""The doors: names, flags and help of every task. No logic.

`inv` finds them through tasks.py in the checkout; the installed program is `iotstack`.
"""

from __future__ import annotations

from collections.abc import Iterable

from invoke.collection import Collection

from ..core.errors import UsageError
from .task import TaskContext, shared_task


@shared_task(
    runs=True,
    fleet=True,
    help={"runtag": "The backup's name; this minute, as 2026-11-23_1100 (or -2), if left out."},
)
def backup(work: TaskContext, host: str = "", runtag: str | None = None) -> int:
    """Back up the stack, prove it, and copy it to every vault."""
    from ..commands.backup.backup import back_up

    return back_up(work.settings, runtag, work.options, work.report, host)


@shared_task(
    fleet=True,
    help={
        "runtag": "The backup to fetch; all that are missing, if left out.",
        "to": "The vault that they are fetched into; the only folder among them, if left out.",
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
    iterable=["vault"],
    help={
        "vault": "Only this vault; may be given several times; every one, if not given.",
        "dry-run": "Show what would be delivered; change nothing.",
    },
)
def sync(work: TaskContext, vault: Iterable[str] | None = None, dry_run: bool = False) -> int:
    """Deliver the backups of this machine that a vault lacks; 3 where it still lacks one."""
    from ..commands.vaults.sync import sync as sync_vaults

    dry = dry_run or work.options.dry_run
    return sync_vaults(work.settings, tuple(vault or ()), work.report, dry_run=dry)


@shared_task(name="list", help={"json": "Print JSON for programs."})
def list_(work: TaskContext, json: bool = False) -> int:
    """List the backups here and in the vaults: age, size, parts, state."""
    from ..commands.catalog.listing import list_backups

    return list_backups(work.settings, work.report, as_json=json)


@shared_task(
    iterable=["allow_missing"],
    help={
        "at": "here (the default), vault (every one), a vault's name, or all.",
        "keep": "How many of the newest good backups stay.",
        "keep-daily": "The newest good one of so many days, likewise weeks, months and years.",
        "keep-within": "All of so long before the newest good one: 30d, 6m, 1y2m.",
        "keep-at-least": "So many good ones stay whatever the rules say.",
        "allow-missing": "A part, container or database that is gone for good, such as influx; "
        "may be given several times.",
        "adopt": "Take in archives without a manifest, once they are read to their end.",
        "undelivered": "Remove here also what a vault lacks, or may lack as it does not answer.",
        "yes": "Do not ask.",
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
    """Remove old backups by the policy of hosts.toml, or by the one of these flags."""
    from ..backups.retention import POLICY_KEYS
    from ..commands.catalog.prune import PruneRequest
    from ..commands.catalog.prune import prune as prune_sets

    numbers = (keep, keep_daily, keep_weekly, keep_monthly, keep_yearly)
    flags = dict(zip(POLICY_KEYS, (*numbers, keep_within, keep_at_least), strict=True))
    dry = dry_run or work.options.dry_run
    request = PruneRequest(at, tuple(allow_missing or ()), adopt, undelivered, yes, dry, json)
    return prune_sets(work.settings, request, flags, work.report)


@shared_task(
    help={
        "runtag": "The backup to pin; latest is the newest.",
        "note": "Why, in one line.",
        "remove": "Take the pin away.",
    }
)
def pin(work: TaskContext, runtag: str, note: str = "", remove: bool = False) -> int:
    """Keep a backup from ever being removed, here and in every vault that has it."""
    from ..commands.catalog.pin import pin as pin_set
    from ..commands.catalog.pin import unpin

    if remove:
        return unpin(work.settings, runtag, work.report)
    return pin_set(work.settings, runtag, note, work.report)


@shared_task(
    opens=True,
    help={
        "runtag": "The backup to verify; latest, the newest, if nothing is given.",
        "all": "Verify every backup there.",
        "newest": "Verify the newest.",
        "at": "here (the default where there is one), a vault's name, vault (every one), all.",
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
) -> int:
    """Read backups again, compare them with their manifests, and record what was found."""
    from ..commands.catalog.verify import Wanted
    from ..commands.catalog.verify import verify as verify_backups

    wanted = Wanted(runtag or "", all, newest, at)
    return verify_backups(work.settings, wanted, work.report, as_json=json)


@shared_task(
    opens=True,
    help={
        "runtag": "The backup; latest is the newest.",
        "files": "List the members of one part instead: general or influx.",
        "at": "here, a vault's name, vault (every one); else the first place that has it.",
        "json": "Print JSON for programs; of members, one a line.",
    },
)
def show(work: TaskContext, runtag: str, files: str = "", at: str = "", json: bool = False) -> int:
    """Show one backup: what it holds, how it was made, what was left out, where its copies lie."""
    from ..commands.catalog.show import show as show_backup
    from ..commands.catalog.show import show_files

    if files:
        return show_files(work.settings, runtag, files, at, work.report, as_json=json)
    return show_backup(work.settings, runtag, at, work.report, as_json=json)


@shared_task(
    opens=True,
    help={
        "before": "A backup; latest is the newest.",
        "after": "The backup that it is compared with.",
        "at": "here, a vault's name, vault (every one); else the first place that has each.",
        "json": "Print JSON for programs.",
    },
)
def diff(work: TaskContext, before: str, after: str, at: str = "", json: bool = False) -> int:
    """Compare two backups: files, databases and shards that came, went or changed."""
    from ..commands.catalog.diff import diff as diff_backups

    return diff_backups(work.settings, before, after, at, work.report, as_json=json)


@shared_task(
    opens=True,
    help={
        "runtag": "The backup; latest is the newest.",
        "at": "Which copy: here or a vault's name; the first vault, if there is one.",
    },
)
def rehearse(work: TaskContext, runtag: str = "latest", at: str = "") -> int:
    """Restore a backup into a scratch folder and databases of its own, and remove them."""
    from ..commands.restore.rehearse import rehearse as rehearse_restore

    return rehearse_restore(work.settings, runtag, at, work.report)


@shared_task(
    opens=True,
    help={
        "what": "new makes a key, sheet writes how to open copies by hand, check proves the key.",
        "at": "For check: this vault; every vault, if not given.",
    },
)
def key(work: TaskContext, what: str, at: str = "") -> int:
    """Make the key that opens sealed copies, write it down for a bad day, or prove it."""
    from ..commands.catalog.key import check_key, make_key, write_sheet

    identity = work.options.identity
    if what == "check":
        return check_key(work.settings, identity, at, work.report)
    doors = {"new": make_key, "sheet": write_sheet}
    if what not in doors:
        raise UsageError(f"inv key {what}: write new, sheet or check.")
    return doors[what](work.settings, identity, work.report)


@shared_task(help={"format": "tree, mermaid or dot."})
def graph(work: TaskContext, format: str = "tree") -> None:  # noqa: A002 - it is the flag's name
    """Show what a backup is made of, as a picture of the rules."""
    from ..commands.backup.why import show_graph

    show_graph(work.settings, work.report, format)


@shared_task(
    help={
        "file": "A file of a backup: a path below the stack's folder, such as "
        "backups/2026-11-23_1100.general-backup.tar.gz, or nas:NAME for one in a vault."
    }
)
def why(work: TaskContext, file: str) -> None:
    """Say how a file is made, from what, and why it would or would not be made now."""
    from ..commands.backup.why import show_why

    show_why(work.settings, work.report, file)


@shared_task(
    opens=True,
    runs=True,
    fleet=True,
    iterable=["only", "live"],
    help={
        "runtag": "The backup to restore; latest is the newest.",
        "from": "vault (the default), a vault's name, here (the target's own backups), a folder.",
        "only": "Restore this service alone; may be given several times.",
        "live": "The host once more, if it is a live one; of several, each.",
        "compose": "Put the backup's compose file and .env in place, not beside those there.",
        "bare": "For a new machine: make the folder, use the backup's compose file, start all.",
        "exact": "Put aside what the backup has not: databases, users, folders; else it stays.",
        "strict": "Undo all of it where one container does not come up, not a database's alone.",
        "yes": "Do not ask.",
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
    """Restore a backup: staged, checked, swapped by rename, proven, or undone by itself."""
    from ..commands.restore.request import RestoreRequest
    from ..commands.restore.restore import restore as restore_backup

    names = tuple(dict.fromkeys(only or ())), tuple(live or ())
    if names[0] and (compose or bare):
        raise UsageError("--compose and --bare are for a whole restore: leave out --only.")
    request = RestoreRequest(
        runtag, host, from_, *names, yes, strict, compose or bare, bare, exact
    )
    return restore_backup(work.settings, request, work.options, work.report)


@shared_task(
    name="reload-influxdb",
    help={
        "host": "A host of hosts.toml; this machine, if not given.",
        "keep-old": "How many days the old data stay; until you remove them, if not given.",
        "count": "Count all values before and after (the default); --no-count is quicker.",
        "yes": "Do not ask.",
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
    """Write InfluxDB's data anew from a dump that is proven, or leave all as it was."""
    from ..commands.restore.reload import Reload, read_days
    from ..commands.restore.reload import reload_influxdb as reload_data

    asked = Reload(host or "", read_days(keep_old), count, yes)
    dry = dry_run or work.options.dry_run
    return reload_data(work.settings, asked, work.report, dry_run=dry)


@shared_task(
    help={
        "host": "A host of hosts.toml; this machine, if not given.",
        "list": "List what restores replaced: from when, how large, what becomes of it.",
        "leave-gone": "Undo the rest where old data were removed; that stays as it is now.",
        "last-restore": "With --yes: take back the last restore or reload though it went well.",
        "yes": "Do not ask; without --last-restore only what did not end is undone.",
    }
)
def undo(
    work: TaskContext,
    host: str | None = None,
    last_restore: bool = False,
    leave_gone: bool = False,
    yes: bool = False,
    list: bool = False,  # noqa: A002 - the name of the flag
) -> int:
    """Undo a restore or reload that did not end, or go back to before the last one."""
    if list:
        from ..commands.undo.state_list import list_states

        return list_states(work.settings, host or "", work.report)
    from ..commands.undo.undo import undo as undo_restore

    asked = {"yes": yes, "last_restore": last_restore, "leave_gone": leave_gone}
    return undo_restore(work.settings, host or "", work.report, **asked)


@shared_task(
    help={
        "trust": "Show the key of this host or vault, ask, and write it into known_hosts.",
        "yes": "Do not ask.",
    }
)
def hosts(work: TaskContext, trust: str = "", yes: bool = False) -> int:
    """List the hosts of hosts.toml: reachable, key known, fit for a restore, space."""
    from ..commands.doctor.hosts import list_hosts, trust_host

    if trust:
        return trust_host(work.settings, trust, work.report, yes=yes)
    return list_hosts(work.settings, work.report)


@shared_task(
    fleet=True,
    help={
        "json": "Print JSON for programs.",
    },
)
def doctor(work: TaskContext, host: str = "", json: bool = False) -> int:
    """Look for whatever would make a backup fail, and say what mends it."""
    from ..commands.doctor.doctor import tell_findings

    return tell_findings(work.settings, host, work.report, as_json=json)


@shared_task(help={"json": "Print JSON for programs."})
def services(work: TaskContext, json: bool = False) -> int:
    """Say of each container of the stack how a backup saves its data; 3 where it does not."""
    from ..commands.backup.services import list_services

    return list_services(work.settings, work.report, as_json=json)


@shared_task(
    monitored=True,
    fleet=True,
    help={
        "max-age": "How old the newest good backup may be, such as 26h, 90m or 2d.",
        "at": "Only this place: here, or a vault; every place, if not given.",
    },
)
def status(work: TaskContext, host: str = "", max_age: str = "26h", at: str = "") -> int:
    """Say in one line for a monitor whether there is a good, young backup; exit 0, 1 or 2."""
    from ..commands.catalog.status import tell_status

    return tell_status(work.settings, max_age, at, work.report, host)


@shared_task()
def demo(work: TaskContext) -> int:
    """Make a sample stack, back it up, break it, and show what was proven."""
    from ..commands.demo import show_demo

    return show_demo(work.report)


namespace = Collection(
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
)
