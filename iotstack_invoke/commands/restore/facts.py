"""What a restore queries of its target, in one place, as plain data for a plan.

The facts are of one moment. Decisions about them are made elsewhere (planner.py); the contents of
dumps and archives are described where those are read.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ...backups.bundles import RECIPES
from ...core.dataclass import dataclass
from ...core.stack_folders import BACKUPS, FOLDERS, RESTORE
from ...databases.influxdb.server import Server
from ...databases.sql.servers import SqlServer, located_in
from ...engine.steps import HostAccess
from ...environment.stack_host import StackHost
from ...hosts.base import ANY_EXIT, Command
from ...hosts.inspect import (
    entries,
    free_bytes,
    is_read_only,
    mount_of,
    mount_points,
    points_away,
    read_text,
    stat_on,
    which_may_be_there,
)
from ...services.known import ServiceTable, is_of_restores
from ...stack.compose import (
    InspectedContainer,
    chosen_files,
    compose_words,
    inspect_all,
    is_top_file,
)
from ...workflows.restore import EmptyVolume, Filling, Item, OutsideItem, RestoreFacts
from .sql_imports import stages_of
from .target_checks import INFLUX_FOLDER

EMPTY_FOLDERS = (INFLUX_FOLDER, "volumes/nextcloud")
"""Empty folders in most general parts: their data are elsewhere, or do not exist."""
SAME = (
    'a=$1 b=$2; shift 2; for f; do [ -f "$a/$f" ] || continue; '
    'cmp "$a/$f" "$b/$f" >/dev/null; code=$?; case $code in '
    '0) printf "%s\\0" "$f" ;; 1) ;; *) exit "$code" ;; esac; done'
)
"""Prints which files of two folders are equal: cmp(1) exits with 1 if not, else it failed."""
LOOK_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A target at one moment. Paths are absolute ones of it, kinds are those of find(1)."""

    name: str
    folder: str
    access: HostAccess
    containers: tuple[InspectedContainer, ...]
    """All containers that Docker knows, of this stack or not."""
    compose: tuple[str, ...]
    """The compose command there."""
    tops: Mapping[str, str]
    """The entries of the stack's folder: names, each with its kind."""
    present: frozenset[str]
    """The entries of services/ and volumes/."""
    servers: tuple[SqlServer, ...]
    """The present SQL servers, with the location of their data."""
    mounts: frozenset[str]
    """The mount points."""
    away: frozenset[str]
    """The paths in /etc/fstab that are not mounted."""
    inclusions: frozenset[str]
    """The paths that rows of the settings include, if they may exist."""
    volumes_apart: bool
    """Replaced data of volumes/ cannot be renamed to where the rest is kept."""
    free_bytes: int
    """Free space on the file system of the stack's folder."""
    now_s: int
    """The target's clock, in seconds of the epoch, if Docker restarted a container; else 0."""
    is_new: bool
    """The stack's folder is empty, and root's, and we are root."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Queried once it is known which parts of a backup are wanted."""

    previous: str
    """The folder to which replaced data are moved."""
    compose_files: tuple[str, ...] = ()
    """Those that COMPOSE_FILE in the stack's `.env` names, if that file counts."""
    server: Server | None = None
    influx_apart: str = ""
    influx_pieces: tuple[OutsideItem, ...] = ()
    outside: tuple[OutsideItem, ...] = ()
    fillings: tuple[Filling, ...] = ()
    volumes: tuple[EmptyVolume, ...] = ()
    titles: frozenset[str] = frozenset()
    """The names on the target of the volumes in the outside part."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The contents of a backup's parts: as staged, or before that by its manifest."""

    is_staged: bool
    tops: Mapping[str, str]
    """The general part's contents besides folders: names, each with its kind."""
    folders: Mapping[str, str]
    """Where services/ and volumes/ are staged, and each part of a recipe."""
    items: frozenset[str] = frozenset()
    """`services/x`, `volumes/y`."""
    filled: frozenset[str] = frozenset()
    """Those of EMPTY_FOLDERS that hold files."""
    included: frozenset[str] = frozenset()
    """What it holds of the included paths."""
    same: frozenset[str] = frozenset()
    """The top files that are equal on the target and in the stage, byte for byte."""
    compose_files: tuple[str, ...] = ()
    """Those that COMPOSE_FILE in its `.env` names."""
    recipes: frozenset[tuple[str, str]] = frozenset()
    """The contents of recipe parts, each with its part."""

    @property
    def wanted_tops(self) -> list[str]:
        """The top files, in order."""
        return [name for name in sorted(self.tops) if self.tops[name] == "f" and is_top_file(name)]


def gather(target: StackHost, table: ServiceTable, inclusions: Collection[str]) -> TargetFacts:
    """Return the present facts of a target; raises StepFailed if it cannot be queried.

    A restore gathers them twice. Once under the lock: a dead run was undone, and during the user's
    question everything may have changed. And once right before the switch: fetching may take
    hours, and hooks may stop or start containers. Each time nothing is queried twice.
    """
    host, folder = target.host, target.folder
    containers = inspect_all(host, target.docker)
    tops = entries(host, folder)
    return TargetFacts(
        name=target.name,
        folder=folder,
        access=target.access,
        containers=containers,
        compose=compose_words(host, target.docker),
        tops=tops,
        present=present(target),
        servers=located_in(host, containers, table, target.docker),
        mounts=mount_points(host),
        away=points_away(host),
        inclusions=which_may_be_there(host, inclusions),
        volumes_apart=_volumes_apart(target, tops),
        free_bytes=free_bytes(host, folder) or 0,
        now_s=_clock(target, containers),
        is_new=_is_new(target, tops),
    )


def present(target: StackHost) -> frozenset[str]:
    """Return the entries of services/ and volumes/, as paths of the target."""
    return frozenset(
        f"{target.folder}/{top}/{name}"
        for top in FOLDERS
        for name in entries(target.host, f"{target.folder}/{top}", target.as_root)
        if not is_of_restores(f"volumes/{name}")
    )


def gather_staged(
    target: StackHost, here: TargetFacts, facts: RestoreFacts, stage: str, *, reads_env: bool
) -> Holding:
    """Return what was staged of a backup, and which of its top files are already here.

    `reads_env`: its `.env` may name the compose files. Raises StepFailed if a query fails.
    """
    folders = stages_of(stage, facts)
    recipes = _recipes_staged(target, folders, facts)
    if "general" not in facts.kinds:
        return Holding(is_staged=True, tops={}, folders=folders, recipes=recipes)
    host, root, stack = target.host, target.as_root, f"{stage}/stack"
    tops = entries(host, stack, root)
    names = [f"{top}/{name}" for top in FOLDERS for name in entries(host, folders[top], root)]
    at = {e: f"{folders[e.partition('/')[0]]}/{e.partition('/')[2]}" for e in EMPTY_FOLDERS}
    held = Holding(
        is_staged=True,
        tops=tops,
        folders=folders,
        items=frozenset(names),
        filled=frozenset(e for e in EMPTY_FOLDERS if e in names and _holds_files(target, at[e])),
        included=frozenset(
            path
            for path in facts.included
            for above, name in (posixpath.split(f"{stack}/{path}"),)
            if name in entries(host, above, root)
        ),
        recipes=recipes,
        compose_files=chosen_of(target, stack, tops, root) if reads_env else (),
    )
    asked = [each for each in held.wanted_tops if each in here.tops]
    return replace(held, same=_same(target, stack, asked))


def _recipes_staged(
    target: StackHost, folders: Mapping[str, str], facts: RestoreFacts
) -> frozenset[tuple[str, str]]:
    return frozenset(
        (kind, path)
        for kind in facts.kinds
        if kind in RECIPES
        for path in RECIPES[kind].paths
        for above, name in (posixpath.split(f"{folders[kind]}/{path}"),)
        if name in entries(target.host, above, target.as_root)
    )


def folders_among(target: StackHost, items: Iterable[Item], *, staged: bool) -> list[Item]:
    """Return the items that are folders both live and staged, and no links to folders."""
    script = 'for each; do [ -d "$each" ] && [ ! -L "$each" ] || exit 1; done'
    found = []
    for each in items:
        places = (each.live, each.staged) if staged else (each.live,)
        words = (*target.as_root, "sh", "-c", script, "sh", *places)
        if target.host.run(Command(words, frozenset({0, 1}))).exit_code == 0:
            found.append(each)
    return found


def chosen_of(
    target: StackHost, folder: str, there: Collection[str], as_root: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the compose files that COMPOSE_FILE in the `.env` of a folder names."""
    if ".env" not in there:
        return ()
    return chosen_files(read_text(target.host, f"{folder}/.env", as_root))


def _same(target: StackHost, stack: str, names: list[str]) -> frozenset[str]:
    """Return the top files that are equal on the target and in the stage, byte for byte.

    Raises StepFailed if that is unknown; what is not a file there differs.
    """
    folders = (target.folder, stack)
    words = (*target.as_root, "sh", "-c", SAME, "sh", *folders, *names)
    command = Command(words, timeout_s=LOOK_LIMIT_S, label=shlex.join(("cmp", *folders)))
    told = target.host.run(command).out if names else ""
    return frozenset(filter(None, told.split("\0")))


def _holds_files(target: StackHost, path: str) -> bool:
    words = ("find", path, "-mindepth", "1", "-not", "-type", "d", "-print", "-quit")
    return bool(stat_on(target.host, words, target.as_root, LOOK_LIMIT_S))


def _volumes_apart(target: StackHost, tops: Collection[str]) -> bool:
    """Return whether volumes/ is a separate mount on which something can be staged."""
    host, folder = target.host, target.folder
    volumes = f"{folder}/volumes"
    is_apart = "volumes" in tops and mount_of(host, volumes) != mount_of(host, folder)
    return is_apart and not is_read_only(host, volumes)


def _clock(target: StackHost, containers: Iterable[InspectedContainer]) -> int:
    again = any(each.restarts or each.restarting for each in containers)
    return int(target.host.run(Command(("date", "-u", "+%s"))).out) if again else 0


def _is_new(target: StackHost, tops: Collection[str]) -> bool:
    if target.as_root or {*tops} - {BACKUPS, RESTORE}:
        return False
    host = target.host
    told = host.run(Command(("stat", "-L", "-c", "%u", "--", target.folder), ANY_EXIT)).out
    return told.strip() == host.run(Command(("id", "-u"))).out.strip() == "0"
