"""What a restore asks of its target, in one place, as plain data that a plan is made from.

Asked are facts of one moment. What they mean for the restore is judged elsewhere (planner.py);
what a dump or an archive holds is told where that is read.
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
"""In most general parts as empty folders: their data are elsewhere, or nowhere."""
SAME = (
    'a=$1 b=$2; shift 2; for f; do [ -f "$a/$f" ] || continue; '
    'cmp "$a/$f" "$b/$f" >/dev/null; code=$?; case $code in '
    '0) printf "%s\\0" "$f" ;; 1) ;; *) exit "$code" ;; esac; done'
)
"""Which files of two folders are the same: cmp(1) ends with 1 for a difference, else it failed."""
LOOK_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A target at one moment. Paths are absolute ones of it, kinds are those of find(1)."""

    name: str
    folder: str
    access: HostAccess
    containers: tuple[InspectedContainer, ...]
    """All that Docker knows, of this stack or not."""
    compose: tuple[str, ...]
    """How Compose is called there."""
    tops: Mapping[str, str]
    """What lies in the stack's folder: names, each with its kind."""
    present: frozenset[str]
    """What lies in services/ and volumes/."""
    servers: tuple[SqlServer, ...]
    """The servers of SQL that are there, with where their data lie."""
    mounts: frozenset[str]
    """The mount points."""
    away: frozenset[str]
    """Where /etc/fstab has something that is not mounted."""
    inclusions: frozenset[str]
    """The paths that rows of the settings include, if they may be there."""
    volumes_apart: bool
    """What is replaced of volumes/ cannot be renamed to where the rest is kept."""
    free_bytes: int
    """Of the file system that the stack's folder lies on."""
    now_s: int
    """The target's clock, in seconds of the epoch, if Docker started a container again; else 0."""
    is_new: bool
    """The stack's folder holds nothing yet, and is root's, who we are."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is asked once it is known which parts of a backup are wanted."""

    previous: str
    """Where what is replaced is moved to."""
    compose_files: tuple[str, ...] = ()
    """Those that COMPOSE_FILE in the stack's `.env` names, if that file counts."""
    server: Server | None = None
    influx_apart: str = ""
    influx_pieces: tuple[OutsideItem, ...] = ()
    outside: tuple[OutsideItem, ...] = ()
    fillings: tuple[Filling, ...] = ()
    volumes: tuple[EmptyVolume, ...] = ()
    titles: frozenset[str] = frozenset()
    """What the volumes of the outside part are called on the target."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the parts of a backup hold: as they lie staged, or before that by its manifest."""

    is_staged: bool
    tops: Mapping[str, str]
    """What the general part holds besides folders: names, each with its kind."""
    folders: Mapping[str, str]
    """Where services/ and volumes/ are staged, and each part of a recipe."""
    items: frozenset[str] = frozenset()
    """`services/x`, `volumes/y`."""
    filled: frozenset[str] = frozenset()
    """Those of EMPTY_FOLDERS that hold files."""
    included: frozenset[str] = frozenset()
    """What it holds of the paths that were included."""
    same: frozenset[str] = frozenset()
    """The top files that lie on the target as they are staged, byte for byte."""
    compose_files: tuple[str, ...] = ()
    """Those that COMPOSE_FILE in its `.env` names."""
    recipes: frozenset[tuple[str, str]] = frozenset()
    """What the parts of recipes hold, each with its part."""

    @property
    def wanted_tops(self) -> list[str]:
        """The top files, in order."""
        return [name for name in sorted(self.tops) if self.tops[name] == "f" and is_top_file(name)]


def gather(target: StackHost, table: ServiceTable, inclusions: Collection[str]) -> TargetFacts:
    """Return the facts of a target as they are now; raises StepFailed where it cannot be asked.

    A restore gathers them at two moments. Under the lock: a run that died was undone, and while a
    person thought about a question, whose facts are of a moment before, all may have changed. And
    right before the switch: to fetch may take hours, and hooks may stop or start containers.
    At each of these moments nothing of it is asked twice.
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
    """Return what there is in services/ and volumes/, as paths of the target."""
    return frozenset(
        f"{target.folder}/{top}/{name}"
        for top in FOLDERS
        for name in entries(target.host, f"{target.folder}/{top}", target.as_root)
        if not is_of_restores(f"volumes/{name}")
    )


def gather_staged(
    target: StackHost, here: TargetFacts, facts: RestoreFacts, stage: str, *, reads_env: bool
) -> Holding:
    """Return what was staged of a backup, and which top files of it are here already.

    `reads_env`: its `.env` may name the compose files. Raises StepFailed where it cannot be told.
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
    """Return the items that are folders where they lie, and staged, and no links to such."""
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
    """Return the top files that lie on the target as they are staged, byte for byte.

    Raises StepFailed where that cannot be told; what is no file there is another thing.
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
    """Tell whether volumes/ is a mount of its own on which something can be staged."""
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
