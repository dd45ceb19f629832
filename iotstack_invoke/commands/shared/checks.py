"""Checks of a stack's fitness, and how to fix problems. Pure: answers in, findings out.

Each judge takes the output of a program. `needed` says whether a backup, or a restore to another
host, fails without it. Not for: running programs (doctor.py).
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType

from ...backups.sets import BackupSet, State
from ...core.dataclass import dataclass
from ...databases.influxdb.dump import BACKUP_INSIDE, DumpInflux
from ...databases.influxdb2.check import EXPERIMENTAL
from ...databases.influxdb2.dump import DumpInflux2, Influx2Look
from ...databases.sql.servers import ENGINES, ITS_ROW, NO_PROGRAM, NOT_LET_IN, SqlServer
from ...databases.sqlite.files import CopySqlite
from ...engine.journal import owed_in
from ...environment.environment import Newest
from ...environment.hooks import shown
from ...hosts.base import Result
from ...hosts.inspect import NO_PROGRAM_EXIT
from ...reporting.report import age_text, size_text
from ...services.known import Cover
from ...settings.model import Hook
from ...stack.compose import InspectedContainer, reason_of_refusal
from ...stack.inside import is_in, path_on_host
from ...stack.quiesce import Quiesce
from .restore_id import change_in

MISSING_EXIT = 127
YOUNG = timedelta(hours=26)
"""A day, and time for a late run."""
CLOCK_LIMIT_S = 5.0
EPOCH = re.compile(r"[0-9]{1,15}")
"""The output of `date +%s`."""
FEW_INODES = 100
MANY_INODES_PERCENT = 95
OTHERS_READ = 0o005


class Severity(Enum):
    """How severe a finding is."""

    GOOD = "good"
    WARNING = "warning"
    FAILED = "failed"
    """A backup, a copy of it, or a restore to this host would fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact: its name, how bad it is, a short sentence, and how to fix it ('' if good)."""

    name: str
    verdict: Severity
    found: str
    fix: str = ""


def good(name: str, found: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(name, Severity.GOOD, found)


def warning(name: str, found: str, fix: str) -> Finding:
    """Return a finding that the user should know."""
    return Finding(name, Severity.WARNING, found, fix)


def failed(name: str, found: str, fix: str) -> Finding:
    """Return a finding that makes something fail."""
    return Finding(name, Severity.FAILED, found, fix)


def bad(name: str, found: str, fix: str, *, needed: bool) -> Finding:
    """Return a failure if it is needed, and a warning otherwise."""
    return failed(name, found, fix) if needed else warning(name, found, fix)


# Programs


def version_in(text: str) -> str:
    """Return the first version number of a text, '' if it has none."""
    told = re.search(r"\d+(?:\.\d+)+[\w.+~-]*", text)
    return told[0] if told else ""


def judge_program(name: str, told: Result, package: str, *, needed: bool) -> Finding:
    """Judge a program by its output for `--version`."""
    if told.exit_code == MISSING_EXIT:
        return bad(name, "is not installed", f"sudo apt-get install {package}", needed=needed)
    if told.exit_code:
        return bad(name, told.last_line, f"sudo apt-get install {package}", needed=needed)
    return good(name, version_in(told.out) or "is there")


def judge_tar(told: Result) -> Finding:
    """Judge tar, which must be GNU's: only it keeps owners, attributes, and reports changes."""
    found = judge_program("tar", told, "tar", needed=True)
    if found.verdict is Severity.GOOD and "GNU tar" not in told.out:
        what = told.out.strip().partition("\n")[0] or "it prints no version"
        return failed("tar", f"is not GNU tar: {what}", "sudo apt-get install tar")
    return good("tar", f"GNU {found.found}") if found.verdict is Severity.GOOD else found


def judge_docker(told: Result, *, needed: bool) -> Finding:
    """Judge the Docker engine by `docker version --format {{.Server.Version}}`."""
    said = told.last_line
    if told.exit_code == 0 and version_in(told.out):
        return good("docker", version_in(told.out))
    if told.exit_code == MISSING_EXIT:
        fix = "curl -fsSL https://get.docker.com | sudo sh"
        return bad("docker", "is not installed", fix, needed=needed)
    if "permission denied" in said:
        fix = 'sudo usermod -aG docker "$USER", and log in again'
        said = reason_of_refusal(said)
    else:
        fix = "sudo systemctl restart docker; see journalctl -u docker"
    return bad("docker", said, fix, needed=needed)


def judge_compose(plugin: Result, ask_v1: Callable[[], Result], *, needed: bool) -> Finding:
    """Judge compose: v2's plugin, or else v1's program, which is queried only then."""
    if plugin.exit_code == 0 and version_in(plugin.out):
        return good("compose", f"{version_in(plugin.out)} (`docker compose`)")
    program = ask_v1()
    if program.exit_code == 0 and version_in(program.out):
        return good("compose", f"{version_in(program.out)} (`docker-compose`)")
    found = "there is neither `docker compose` nor `docker-compose`"
    return bad("compose", found, "sudo apt-get install docker-compose-plugin", needed=needed)


def judge_sudo(user_id: str, told: Result | None) -> Finding:
    """Judge sudo by `told`, the result of `sudo -n true`, or None if the settings need no sudo."""
    if user_id == "0":
        return good("sudo", "not needed by root")
    if told is None:
        return good("sudo", "not used (sudo = false)")
    if told.exit_code == 0:
        return good("sudo", "works without a password")
    if told.exit_code == NO_PROGRAM_EXIT:
        fix = "install it, or set sudo = false if every file is yours"
        return failed("sudo", f"is not installed: {told.last_line}", fix)
    fix = "allow it with NOPASSWD in /etc/sudoers.d, or set sudo = false if every file is yours"
    return failed("sudo", f"needs a password for this user: {told.last_line}", fix)


def judge_hook(name: str, hook: Hook, told: Result) -> Finding | None:
    """Judge the program of a hook by the output of hooks.py's FIND_PROGRAM; None if it runs."""
    program, quoted = hook.words[0], shlex.quote(hook.words[0])
    match told.out.rstrip("\n").split(" ", 1):
        case ["there"]:
            return None
        case ["missing"]:
            where = "" if "/" in program else ", in no folder of PATH"
            found = f"program {program} not found{where}"
            fix = f"install it, or correct {name} in hosts.toml"
        case ["folder"]:
            found = f"{program} is a folder"
            fix = f"set the program in it: {name} in hosts.toml"
        case ["shut"]:
            found, fix = f"{program} is not executable", f"chmod +x {quoted}"
        case ["interpreter", by]:
            found = f"the first line of {program} names {by!r}, which is missing"
            fix = f"sed -i 's/\\r$//' {quoted}" if by.endswith("\r") else "correct that line"
        case _:
            found, fix = f"cannot check it: {told.last_line}", f"ls -l {quoted}"
    when, _, task = name.partition("_")
    then = f"each {task} {'is refused' if when == 'before' else 'ends as failed'}"
    said = f"`{shown(hook)}`: {found}{'' if hook.may_fail else f', so {then}'}"
    return bad(name, said, fix, needed=not hook.may_fail)


# Folders and the disk


def judge_backups(path: str, told: Result) -> Finding:
    """Judge the folder of the backups.

    By a line `OWNER MODE` of stat(1) and `writable`, or by `missing` or `dangling`.
    """
    name, quoted = "backups", shlex.quote(path)
    words = told.out.split()
    match words:
        case ["missing"]:
            return good(name, f"{path} does not exist yet: the first backup creates it")
        case ["dangling"]:
            fix = f"mount its drive, or create a folder: rm {quoted} && mkdir -m 0700 {quoted}"
            return failed(name, f"{path} is a broken link", fix)
        case ["file"]:
            return failed(name, f"{path} is not a folder", f"mv {quoted} {quoted}.old")
        case [_, mode, "writable"] if int(mode, 8) & OTHERS_READ:
            found = f"{path} can be read by everyone (mode {mode})"
            return warning(name, found, f"chmod 0700 {quoted}")
        case [_, mode, "writable"]:
            return good(name, f"{path} is this user's to write (mode {mode})")
        case [owner, mode, *_]:
            found = f"{path} belongs to user {owner} (mode {mode}), and this user cannot write it"
            return failed(name, found, f'sudo chown "$USER:" {quoted}')
    return failed(name, f"cannot check {path}: {told.last_line}", f"ls -ld {quoted}")


def judge_device(folder: str, stack_device: str, restore_device: str, *, needed: bool) -> Finding:
    """Judge whether restore/ can be renamed from: it must be on the mount of the stack.

    `stack_device`, `restore_device`: as mount_of() returns them.
    """
    if stack_device == restore_device:
        found = "is on the same file system as the stack, so a restore can rename folders"
        return good("restore", found)
    found = (
        f"{folder} is on another file system than the stack, so a restore cannot rename folders"
    )
    fix = f"make {shlex.quote(folder)} a plain folder beside services/ and volumes/"
    return bad("restore", found, fix, needed=needed)


APART = {
    "backups": "a restore reads there and keeps replaced data and its journal in restore/",
    "volumes": "a restore stages its data there and keeps replaced data there",
}
"""Folders of a stack that may be on another file system, and what that means."""


def judge_places(folder: str, kinds: Mapping[str, str], apart: Iterable[str]) -> Iterator[Finding]:
    """Judge the folders of a stack by the needs of a restore.

    `kinds`: the kind of each entry, from find(1). `apart`: those of APART that are separate.
    """
    if kinds.get("restore") == "l":
        found = f"{folder}/restore is a link, but replaced data are renamed into it"
        fix = (
            f"replace {shlex.quote(folder)}/restore by a plain folder: until then a restore is "
            "refused"
        )
        yield warning("restore", found, fix)
    for each in apart:
        yield good(each, f"on another file system than the stack: {APART[each]}")


def judge_mounts(
    folder: str,
    points: Collection[str],
    away: Collection[str],
    data: Collection[str],
    *,
    needed: bool,
) -> Iterator[Finding]:
    """Judge the drives that are mounted in services/ and volumes/ by the needs of a restore.

    `away`: those of /etc/fstab that are not mounted. `data`: the folders that a restore replaces
    by a new one, such as those of databases.
    """
    others = "restore the other services one by one: --only NAME"
    for point in sorted({*points, *away}):
        top, _, below = posixpath.relpath(point, folder).partition("/")
        if top not in ("services", "volumes") or (top == "volumes" and not below):
            continue
        item = f"{top}/{below.partition('/')[0]}"
        more = [each for each in points if each != point and is_in(each, point)]
        if top == "services":
            found = f"{point} is a mount point, so a restore of any set is refused"
            yield bad("services", found, "use plain folders in services/", needed=needed)
        elif point in away:
            found = f"/etc/fstab has {point}, where nothing is mounted: its restore is refused"
            yield warning(item, found, "mount it, or remove that line")
        elif any(is_in(point, each) for each in data):
            found = (
                f"{point} is mounted where a restore replaces data of a database, so that is "
                "refused"
            )
            yield warning(item, found, f"mount it one folder higher, or {others}")
        elif point != f"{folder}/{item}":
            found = f"{point} is mounted in it, so a restore of it is refused"
            yield warning(item, found, f"mount a drive at {folder}/{item} itself, or {others}")
        elif not more and not any(is_in(each, point) for each in data):
            found = "a mount point: a restore copies what belongs there, and swaps its entries"
            yield good(item, found)


def judge_space(
    name: str,
    free_bytes: int | None,
    needed_bytes: int | None,
    takes: Mapping[str, int] = MappingProxyType({}),
    *,
    fix: str = "free some space, or keep fewer backups ([stack] keep)",
    is_guess: bool = False,
) -> Finding:
    """Judge the free space against the needs of the next backup.

    A number is None if unknown. `takes`: the needs by purpose. `fix`: how to free space there.
    `is_guess`: the compression of the files is not known yet.
    """
    if free_bytes is None:
        look = "check it by hand now and then: it cannot be checked from here"
        return warning(name, "free space is unknown", look)
    if needed_bytes is None:
        return good(name, f"{size_text(free_bytes)} free")
    next_one = "the first backup takes perhaps" if is_guess else "the next backup takes"
    found = f"{size_text(free_bytes)} free, and {next_one} {size_text(needed_bytes)}"
    if len(takes) > 1:
        found += (
            f" ({' + '.join(f'{size_text(size)} for {what}' for what, size in takes.items())})"
        )
    if free_bytes < needed_bytes:
        return failed(name, found, fix)
    return good(name, found)


def judge_inodes(told: Result) -> Finding:
    """Judge the free inodes by `df -Pi`; a file system that counts none (btrfs) has no limit."""
    columns = re.search(r"\s(\d+)\s+(\d+)\s+(\d+)\s+(?:\d+%|-)\s", told.out.partition("\n")[2])
    if told.exit_code or columns is None:
        return warning("inodes", f"are unknown: {told.last_line}", "df -i shows them")
    total, used, free = map(int, columns.groups())
    if not total:
        return good("inodes", "this file system has no limit")
    found = f"{free:,} of {total:,} free"
    fix = "find the folder with too many small files: du --inodes -x / | sort -n | tail"
    if free < FEW_INODES:
        return failed("inodes", found, fix)
    if used * 100 >= total * MANY_INODES_PERCENT:
        return warning("inodes", found, fix)
    return good("inodes", found)


# The clock


def judge_synchronised(told: Result) -> Finding:
    """Judge by `timedatectl show -p NTPSynchronized`, which covers chrony and ntpd as well."""
    answer = told.out.strip()
    if answer == "NTPSynchronized=yes":
        return good("clock", "is synchronised")
    if answer == "NTPSynchronized=no":
        found = "is not synchronised, but backups are sorted by time"
        return warning("clock", found, "sudo timedatectl set-ntp true")
    found = f"cannot tell whether it is synchronised: {told.last_line}"
    return warning("clock", found, "compare `date` with a clock, and install chrony")


def judge_clocks(told: Result, before_s: float, after_s: float) -> Finding:
    """Judge another machine's `date +%s` against our clock, before and after the query."""
    name = "clock against ours"
    if told.exit_code or not EPOCH.fullmatch(told.out.strip()):
        return warning(name, f"is unknown: {told.last_line}", "compare `date` on both")
    theirs_s = int(told.out)
    # date prints whole seconds: its time lasted until the next one
    apart_s = max(before_s - (theirs_s + 1), theirs_s - after_s, 0.0)
    if apart_s > CLOCK_LIMIT_S:
        side = "ahead" if theirs_s > after_s else "behind"
        fix = "sudo timedatectl set-ntp true, on the one that is wrong"
        return warning(name, f"is {apart_s:,.0f} s {side}", fix)
    return good(name, "agrees")


# Containers


def judge_influx(found: InspectedContainer | None, name: str, *, has_data: bool) -> Finding | None:
    """Judge InfluxDB's container before its version is queried; None if it runs."""
    topic = "influxdb"
    if found is None:
        if has_data:
            said = (
                f"no container named {name} to dump: the files of volumes/influxdb would be "
                "copied as they are"
            )
            return warning(topic, said, "docker compose up -d, or [influxdb] container = …")
        return good(topic, f"no container named {name}: nothing to dump")
    if not found.container.running:
        how, do = ("paused", "unpause") if found.paused else ("stopped", "start")
        said = f"container {name} is {how}: it would not be dumped, and its files copied instead"
        return warning(topic, said, f"docker {do} {name}, unless a restore is running")
    return None


def judge_influx_version(found: InspectedContainer, version: str) -> Finding:
    """Judge the version of a running container."""
    if not version.startswith("1."):
        said = f"{version} runs in {found.container.name}, but only 1.x is supported there"
        fix = (
            'set in hosts.toml what it is: [[services]], kind = "dump", dump = "influxdb2"; or '
            "choose another one: [influxdb] container = …"
        )
        return failed("influxdb", said, fix)
    folder = path_on_host(found.mounts, BACKUP_INSIDE)
    where = f"its backup folder is {folder}" if folder else "its dumps are copied by Docker"
    return good("influxdb", f"{version}, {where}")


def judge_influx2(look: Influx2Look) -> Finding:
    """Judge the InfluxDB 2 that is to be dumped, by its answers."""
    topic, facts = "influxdb2", look.facts
    if facts is None:
        return failed(topic, look.error, "fix this, or InfluxDB 2 is not backed up")
    where = "its dumps are copied by Docker"
    if facts.backup_on_host:
        where = f"its backup folder is {facts.backup_on_host}"
    return good(topic, f"{facts.version}, {where} ({EXPERIMENTAL})")


def judge_databases(covers: Iterable[Cover], influx: str) -> tuple[Finding, ...]:
    """Judge how the containers of a stack are saved: one warning for each that is not.

    `influx` names the one with separate findings.
    """
    found = [
        warning(
            f"container {each.container.name}",
            f"{each.container.image} is not covered: {each.how}",
            each.advice or '[[services]] in hosts.toml: kind = "stop", or "skip" with a reason',
        )
        for each in covers
        if not each.covered and each.container.name != influx
    ]
    said = "all containers' data are saved consistently: none is copied while it writes"
    return tuple(found) or (good("databases", said),)


def judge_holdings(uncovered: Iterable[tuple[str, str]]) -> tuple[Finding, ...]:
    """Judge what is in no part: a warning each, by the container that keeps it, if one does.

    Each includes what to do, except for unreadable parts of the compose files.
    """
    found = []
    for container, told in uncovered:
        plain = told.removeprefix("NOT COVERED: ")
        fix = "" if plain != told else "for details: docker compose config"
        name = f"container {container}" if container else "not covered"
        found.append(warning(name, told if container else plain, fix))
    return tuple(found)


def judge_layers(in_layers: Iterable[tuple[str, str]]) -> tuple[Finding, ...]:
    """Judge what containers wrote to their own layers that may be of value: a warning each."""
    fix = (
        "if you need these data, mount a folder of volumes/ there; else [[services]], kind = "
        '"skip"'
    )
    return tuple(warning(f"container {name}", told, fix) for name, told in in_layers)


def judge_rows(idle: Iterable[str]) -> tuple[Finding, ...]:
    """Judge rows of hosts.toml that match no container: they have no effect."""
    fix = "correct its name, containers or images in hosts.toml, or remove it"
    return tuple(warning("settings", each, fix) for each in idle)


def judge_sql(server: SqlServer, told: Result) -> Finding:
    """Judge a server that is dumped as SQL by its answer to `SELECT version()`."""
    topic = f"container {server.container}"
    if told.exit_code == 0:
        name = f"{ENGINES[server.engine].title} {version_in(told.out)}"
        return good(topic, f"{name} accepts the login")
    if told.exit_code == NOT_LET_IN:
        fix = "put its current root password into docker-compose.yml or .env, and recreate it"
        return failed(topic, told.last_line, fix)
    if told.exit_code == NO_PROGRAM:
        return failed(topic, told.last_line, f"check that {ITS_ROW}")
    return failed(topic, told.last_line, f"see docker logs {server.container}")


# Left by earlier runs, and made by them


def judge_journal(lines: Iterable[str], undo: str, gone: str = "") -> Finding:
    """Judge the pending undo of a journal; the next backup undoes a backup's own steps.

    `gone`: replaced data that cannot be put back, since they were removed: no run can continue.
    """
    told = tuple(lines)
    owed = owed_in(told)
    if not owed:
        return good("journal", "nothing to undo")
    change = unfinished(told)
    if not change:
        found = "a backup is running or was interrupted; the next one cleans up"
        return warning("journal", found, "inv backup")
    if gone:
        found = (
            f"{change} was interrupted, and the replaced data of {gone} are gone: no run starts "
            "before the rest is undone. Until then start no container by hand"
        )
        return failed("journal", found, f"put them back, or {undo} --leave-gone")
    found = (
        f"{change} is running or was interrupted. If interrupted: start no container by hand; "
        f"undo it first (only its {len(owed)} steps). The next backup also undoes it"
    )
    return failed("journal", found, undo)


def unfinished(lines: Iterable[str]) -> str:
    """Return the restore or reload that did not end; '' if only a backup's steps are pending."""
    told = tuple(lines)
    of_backups = {each.__name__ for each in (DumpInflux, DumpInflux2, CopySqlite, Quiesce)}
    if {each.step for each in owed_in(told)} <= of_backups:
        return ""
    return str(change_in(told) or "a restore or reload")


def judge_sets(sets: Iterable[BackupSet]) -> tuple[Finding, ...]:
    """Return warnings about the sets that a run left unfinished, and those that are damaged."""
    found = []
    for each in sets:
        name = f"backup {each.runtag}"
        again = f"inv backup --runtag {shlex.quote(each.runtag)}"
        if each.state is State.UNFINISHED:
            found.append(warning(name, "is unfinished: its run is active or interrupted", again))
        elif each.state is State.DAMAGED:
            helps = f"for the reason and other copies: inv show {shlex.quote(each.runtag)}"
            found.append(warning(name, "is damaged", helps))
    return tuple(found)


def _show(runtag: str) -> str:
    return f"inv show {shlex.quote(runtag)}"


def judge_age(
    name: str, newest: Newest, now: datetime, here: Newest | None = None
) -> tuple[Finding, ...]:
    """Judge the age of the newest good backup of a location.

    `here`: the newest beside the stack, which may only need to be delivered there.
    """
    made = here.made if here else None
    owed = made and now - made <= YOUNG and (newest.made is None or made > newest.made)
    fix = "inv sync" if owed else "inv backup"
    found = [
        warning(name, f"{runtag} is dated in the future", "set the clock, and remove that backup")
        for runtag in newest.ahead
    ]
    found += [
        warning(name, f"{each.runtag}, which is newer, is {each.state.value}", _show(each.runtag))
        for _, each in newest.newer
        if each.state in (State.DAMAGED, State.INCOMPLETE)
    ]
    if newest.good is None or newest.made is None:
        return (*found, warning(name, "no good backup", fix))
    age = age_text(min(newest.made, now), now)
    said = f"{newest.good.runtag}, {newest.good.state.value}, age: {age}"
    if now - newest.made > YOUNG:
        return (*found, warning(name, said, fix))
    return (*found, good(name, said))
