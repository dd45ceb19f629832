"""What there is before a restore: containers, room, and what the backup would put in place."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property

from ...archives.scan import Contents, list_archive, refuse_members
from ...backups.archive_records import records_in
from ...backups.bundles import RECIPES
from ...backups.manifest import VOLUME, Manifest
from ...backups.names import KINDS, TEXTS
from ...backups.sets import BackupSet
from ...core.errors import Refused
from ...core.stack_folders import BACKUPS, FOLDERS, RESTORE
from ...databases.influxdb.part import BACKUP_INSIDE, FOLDERS_INSIDE
from ...databases.influxdb.server import Server
from ...databases.sql.servers import ENGINES, SqlServer, located_in
from ...databases.sqlite.files import shown
from ...engine.steps import Record
from ...environment.stack_host import StackHost, find_machine
from ...hosts.base import Command
from ...hosts.inspect import (
    ANY_EXIT,
    device,
    entries,
    free_bytes,
    is_read_only,
    may_be_there,
    mount_of,
    mount_points,
    read_text,
    refuse_read_only,
    stat_on,
    which_may_be_there,
)
from ...hosts.pasted import host_flag
from ...reporting.report import Report, size_text
from ...services.known import is_of_restores
from ...settings.model import Settings
from ...stack.around import folders_around
from ...stack.compose import (
    ANONYMOUS,
    COMPOSE_FILES,
    InspectedContainer,
    chosen_files,
    compose_words,
    inspect_all,
    is_top_file,
    named,
    of_stack,
)
from ...stack.inside import is_in, path_on_host
from ...stack.left_out import patterns_below, plain_place
from ...stack.mounted import refuse_mounts_since
from ...vaults.access import sealed_side
from ...workflows.restore import (
    Around,
    Item,
    OutsideItem,
    RestoreFacts,
    SqlImport,
    aside_folder,
    used_folder,
)
from ..undo.change_logs import log_folder
from ..undo.old_states import is_called_like_state, states_told
from .by_hand import Influx2ByHand
from .outside import OutsidePart, place_there, placed, within_mount
from .request import RestoreRequest, Source
from .selection import Selection
from .sql_imports import SqlImports, recipe_folder, without_new_data
from .stays import Stays
from .target_checks import (
    INFLUX_FOLDER,
    influx_apart,
    mount_higher,
    refuse_away,
    refuse_held,
    refuse_mounts,
    refuse_stage_apart,
    server_to_load,
    time_stamp,
)

EMPTY_FOLDERS = (INFLUX_FOLDER, "volumes/nextcloud")
"""In most general parts as empty folders: their data are elsewhere, or nowhere."""
OVERRIDES = ("docker-compose.override.yml", "docker-compose.override.yaml")
"""What compose reads besides docker-compose.yml, unless it is told which files to read."""
SAME = (
    'a=$1 b=$2; shift 2; for f; do [ -f "$a/$f" ] || continue; '
    'cmp "$a/$f" "$b/$f" >/dev/null; code=$?; case $code in '
    '0) printf "%s\\0" "$f" ;; 1) ;; *) exit "$code" ;; esac; done'
)
"""Which files of two folders are the same: cmp(1) ends with 1 for a difference, else it failed."""
YOUNG_S = 60.0
"""A container that ended before, and is up for no longer than this, may end again."""


def _sick(mine: Iterable[InspectedContainer]) -> tuple[str, ...]:
    """Return the containers that run, and whose health check fails."""
    sick = (each.container for each in mine if each.health == "unhealthy")
    return tuple(each.name for each in sick if each.running)


def sql_bytes(backup: BackupSet, manifest: Manifest | None, kinds: Iterable[str]) -> int:
    """Return how large the dumps of SQL of a backup are, unpacked; a guess without a manifest."""
    parts = {part.kind: part for part in manifest.made} if manifest else {}
    total = 0
    for kind in (each for each in kinds if each in ENGINES or each in RECIPES):
        servers = parts[kind].facts.get("servers", ()) if kind in parts else ()
        told = sum(int(each.get("sql_bytes", 0)) for each in servers)
        total += told or (10 if kind in ENGINES else 1) * backup.files[kind].size_bytes
    return total


def sizes_unpacked(
    backup: BackupSet, manifest: Manifest | None, kinds: Iterable[str] = (), *, fetched: bool
) -> dict[str, int]:
    """Return how many bytes the parts of a backup take while they are staged, by what for."""
    wanted = tuple(kinds) or backup.parts
    sizes = {kind: backup.files[kind].size_bytes for kind in wanted}
    parts = {part.kind: part for part in manifest.made} if manifest else {}
    held = 0
    for kind in (each for each in wanted if each in ("general", "outside", *RECIPES)):
        told = int(parts[kind].facts.get("unpacked_bytes", 0)) if kind in parts else 0
        held += told or sizes[kind] * 3
    return {
        "the archives": sum(sizes.values()) if fetched else 0,
        "the unpacked archives": held,
        "InfluxDB": 3 * sizes.get("influx", 0),
        "databases of SQL": 3 * sql_bytes(backup, manifest, wanted),
    }


class Preflight:
    """A target as it is, and a backup as it would be restored there. Changes nothing."""

    def __init__(
        self,
        settings: Settings,
        target: StackHost,
        source: Source,
        request: RestoreRequest,
        backup: BackupSet,
        manifest: Manifest | None,
        report: Report,
    ) -> None:
        self.settings = settings
        self.target = target
        self.source = source
        self.request = request
        self.backup = backup
        self.manifest = manifest
        self.report = report
        self.runtag = backup.runtag
        self.stage = f"{target.folder}/{RESTORE}/{self.runtag}"
        self._stamp = ""
        self.kept: list[str] = []
        """What of the backup is not put in place, since data of a database lie there."""
        self.same: list[str] = []
        """The top files that are here as they are in the backup; known when it is staged."""
        self.takes_compose = False
        self.tops_here = False
        """There are files of compose here, or a .env."""
        """The backup's compose file and `.env` are put in place, whatever is there."""
        self.influx = self._influx_container()
        self.only = Selection(request, backup, manifest, self.influx)
        self._refuse_early()
        self.influx2 = Influx2ByHand(backup, manifest, target.folder)

    def _refuse_early(self) -> None:
        """Raise Refused where the name and the manifest alone tell that it cannot be."""
        if is_called_like_state(self.runtag):
            raise Refused(
                f"{self.runtag} is called like what an earlier restore keeps, and would be staged "
                f"in its place in {RESTORE}/. Nothing was changed. Restore it by hand, as "
                f"{self.runtag}.{TEXTS['restore']} tells."
            )
        self.only.refuse_exact()
        self.only.refuse_lost(self.source.name)
        self.only.refuse_never_made()
        self.only.refuse_unknown(self._names_here)

    def _names_here(self) -> frozenset[str]:
        found = inspect_all(self.target.host, self.target.docker)
        return frozenset(each.container.name for each in found)

    def _influx_container(self) -> str:
        """Return the container of InfluxDB: that of the settings, or of the backup.

        One that hosts.toml names goes first, then one that is here, then that of the backup.
        """
        told = str(self._told_of_influx("container"))
        name = self.settings.influx.container
        if not told or self.settings.influx.named:
            return name
        found = inspect_all(self.target.host, self.target.docker)
        return name if named(found, name) and not named(found, told) else told

    def _data_of_influx(self) -> str:
        """Return where the manifest says that the data are to lie on the target; '' if nowhere."""
        told = str(self._told_of_influx("data"))
        return place_there(self.target, self.manifest, told) if told else ""

    def _apart_of_influx(self) -> dict[str, str]:
        """Return which of its folders the manifest says are to lie apart, and where."""
        told = self._told_of_influx("apart")
        return {
            name: place_there(self.target, self.manifest, str(told[name]))
            for name in ("meta", "data", "wal")
            if isinstance(told, dict) and told.get(name)
        }

    def _pieces(self, server: Server, previous: str) -> Iterator[OutsideItem]:
        """Yield what is swapped of an InfluxDB besides its folder, each by itself."""
        for name, live in server.apart:
            fresh = f"{posixpath.dirname(live)}/.fresh-{posixpath.basename(live)}"
            yield placed(self.target, OutsideItem(name, fresh, live, "", ""), previous)

    def _told_of_influx(self, fact: str) -> object:
        made = self.manifest.made if self.manifest else ()
        return next((e.facts.get(fact) or "" for e in made if e.kind == "influx"), "")

    def facts(self) -> RestoreFacts:
        """Return what is there now, without the items: these are known from the archive."""
        target, host = self.target, self.target.host
        there = entries(host, target.folder)
        found = inspect_all(host, target.docker)
        names = self.request.names
        bare = not (self.request.only or of_stack(found, target.folder))
        words = compose_words(host, target.docker)
        self.outside = OutsidePart(
            *(target, self.settings, self.manifest, found, names, bare),
            is_strict=words[-1] == "docker-compose",
        )
        mine = self._mine(found)
        compose_file = next((n for n in COMPOSE_FILES if n in there), "")
        self._refuse_stack(mine)
        is_new = bare and not mine and not compose_file
        self.tops_here = any(map(is_top_file, there))
        self.takes_compose = (self.request.compose or is_new) and "general" in self.backup.parts
        if self.takes_compose:
            compose_file = ""
        chosen = () if self.takes_compose else self._chosen(target.folder, there)
        compose = *words, *project_words(target.folder, compose_file, there, chosen)
        kinds = self._kinds(found)
        server = (
            server_to_load(
                *(target, found, self.influx, self._data_of_influx()),
                *(self._apart_of_influx(), f"{self.stage}/influxdb"),
            )
            if "influx" in kinds
            else None
        )
        server_there = named(found, self.influx) is not None
        if server and compose_file and not server_there:
            self._refuse_without_server(compose, self.influx)
        if server and server.within and self.request.databases:
            raise Refused(
                f"On {target.name} the catalogue of InfluxDB lies in container {self.influx} "
                "itself, so single databases cannot be restored beside the others. Nothing was "
                "changed. Map /var/lib/influxdb to a folder, or restore all of InfluxDB: "
                f"--only {self.influx}."
            )
        self._stamp = time_stamp(target, self._stamp, log_folder(self.settings.stack.folder, host))
        previous = f"{target.folder}/{RESTORE}/previous-{self.runtag}-{self._stamp}"
        outside = tuple(self.outside.items(previous, self.stage)) if "outside" in kinds else ()
        facts = RestoreFacts(
            kinds=kinds,
            in_place=self.source.in_place,
            as_root=target.as_root,
            docker=target.docker,
            compose=compose,
            guard=target.guard,
            previous=previous,
            items=(),
            running=self._to_stop(mine, server, outside),
            idle=self._to_stop([e for e in mine if not e.restarting], server, outside, idle=True),
            expected=tuple(
                each.name
                for each in (self.manifest.containers if self.manifest else ())
                if each.running
            ),
            bare=not mine and not self.request.only,
            server=server,
            server_there=server_there,
            databases=self.request.databases,
            dump_inside=posixpath.join(BACKUP_INSIDE, self.runtag, "influx"),
            free_bytes=free_bytes(host, target.folder) or 0,
            limit_s=self.settings.influx.limit_s,
            volumes_apart=self._volumes_apart(there),
            influx_apart=influx_apart(target, server) if server and not server.within else "",
            influx_pieces=tuple(self._pieces(server, previous)) if server else (),
            included=self.manifest.included("general") if self.manifest else (),
            outside=outside,
            fillings=self.outside.fillings(self.stage) if "outside" in kinds else (),
            volumes=tuple(self.outside.empty_volumes) if bare else (),
            vital=self._vital(mine, bare=not mine and not self.request.only),
            unsteady=self._unsteady(mine),
            sick=_sick(mine),
            strict=self.request.strict,
            outside_paths=self.manifest.included("outside") if self.manifest else (),
            exact=self.request.exact,
        )
        if "general" in kinds and self.manifest and self.manifest.sizes:
            folders = self._folders_more(facts, self._as_here(self.manifest.sizes))
            facts = replace(facts, folders=tuple(folders))
        facts = replace(facts, beyond=self._beyond(facts, found))
        return self._with_more(facts, found, self._loads_told(facts, found), staged=False)

    def _loads_told(
        self, facts: RestoreFacts, found: tuple[InspectedContainer, ...]
    ) -> tuple[SqlImport, ...]:
        """Return what the manifest tells of the dumps that are loaded; none that is refused."""
        folder = self.target.folder
        places = (f"{folder}/{top}/{name}" for name in self.request.names for top in FOLDERS)
        items = [Item("", place, "", "") for place in places]
        loads = SqlImports(self.target, found, self.manifest, self.stage, self.request.names)
        try:
            return loads.choose(facts, items, staged=False)
        except Refused:
            return ()  # whoever stages them tells it

    def _with_more(
        self,
        facts: RestoreFacts,
        found: tuple[InspectedContainer, ...],
        loads: tuple[SqlImport, ...],
        *,
        staged: bool,
    ) -> RestoreFacts:
        stays = Stays(self.target, found, self.manifest, self.stage)
        return stays.add(facts, loads, staged=staged)

    def _refuse_stack(self, mine: list[InspectedContainer]) -> None:
        if self.request.bare and mine:
            names = ", ".join(each.container.name for each in mine)
            raise Refused(
                f"On {self.target.name} the stack has containers ({names}), and --bare is for a "
                "machine without. Nothing was changed. Leave out --bare, or take --compose, which "
                "puts the backup's compose file and .env in place."
            )

    def _refuse_mounts(self, facts: RestoreFacts) -> None:
        folder, others = self.target.folder, "Restore the other services one by one: --only NAME"

        def unpack(path: str) -> str:
            archive = shlex.quote(f"{self.runtag}.{KINDS['general']}")
            below = f"./{posixpath.relpath(path, folder)}"
            return (
                f"{others}. For this one stop its containers, and unpack it over what is there: "
                f"sudo tar -xpzf {archive} -C {shlex.quote(folder)} --same-owner "
                f"--numeric-owner --xattrs --acls {shlex.quote(below)}"
            )

        def plain(path: str) -> str:
            return f"Let {path} be a plain folder of the stack, with nothing mounted in it."

        def higher(path: str) -> str:
            return f"{mount_higher(path)} Or: {others[0].lower()}{others[1:]}."

        def load(_path: str) -> str:
            return f"{others}, and load this dump by hand, as RESTORE.txt of the backup tells."

        refuse_mounts(
            self.target,
            ((f"{folder}/services", f"{folder}/{RESTORE}"), plain),
            (facts.server.folders if facts.server else (), higher),
            ([each.server.data for each in facts.loads], load),
            ([each.live for each in facts.items if not each.fresh], unpack),
        )
        refuse_read_only(self.target.host, self._written(facts))
        refuse_away(self.target, [each.live for each in facts.items])
        renamed = [each.live for each in facts.items]
        renamed += [each.live for each in facts.outside]
        renamed += facts.server.folders if facts.server else ()
        refuse_held(self.target, [*renamed, *(each.server.data for each in facts.loads)])

    def _written(self, facts: RestoreFacts) -> Iterator[str]:
        """Yield the folders in which something is put in place or aside, as far as is known."""
        for item in (*(facts.items or self._items_told(facts)), *facts.outside):
            entries_alone = bool(item.fresh) if isinstance(item, Item) else item.is_mount
            yield item.live if entries_alone else posixpath.dirname(item.live)
        loads = facts.loads
        if not loads and {*facts.kinds} & {*ENGINES, *RECIPES}:
            loads = self._loads_told(facts, inspect_all(self.target.host, self.target.docker))
        data = [each.server.data for each in loads]
        data += facts.server.folders if facts.server else ()
        data += [each.live for each in facts.folders] if facts.exact else ()
        yield from map(posixpath.dirname, filter(None, data))

    def _items_told(self, facts: RestoreFacts) -> list[Item]:
        """Return what is swapped of services/ and volumes/, as the manifest alone tells it.

        Where it does not, something of both, unless certain services were asked for.
        """
        sizes = self.manifest.sizes if self.manifest else {}
        names = [each for each in sizes if each.count("/") == 1 and each.split("/")[0] in FOLDERS]
        if not names and not self.request.only:
            names = [f"{top}/" for top in FOLDERS]
        items = [Item("", f"{self.target.folder}/{each}", "", "") for each in names]
        recipes = [each for each in facts.kinds if each in RECIPES]
        asked = [each for each in recipes if not self.request.only or each in self.request.names]
        places = (f"{self.target.folder}/{RECIPES[each].folder}/x" for each in asked)
        found = self.only.named(items) if "general" in facts.kinds else []
        return [*found, *(Item("", each, "", "") for each in places)]

    def _volumes_apart(self, there: Collection[str]) -> bool:
        """Tell whether volumes/ is a mount of its own on which something can be staged."""
        host, folder = self.target.host, self.target.folder
        volumes = f"{folder}/volumes"
        is_apart = "volumes" in there and mount_of(host, volumes) != mount_of(host, folder)
        return is_apart and not is_read_only(host, volumes)

    def facts_again(self, facts: RestoreFacts) -> RestoreFacts:
        """Return the facts with the containers that run now: fetching may have taken hours.

        Raises StepFailed where a drive came or went meanwhile.
        """
        self._refuse_mounts_since(facts)
        found = inspect_all(self.target.host, self.target.docker)
        mine = self._mine(found)
        return replace(
            facts,
            running=self._to_stop(mine, facts.server, facts.outside),
            vital=self._vital(mine, bare=facts.bare),
            unsteady=tuple(dict.fromkeys((*facts.unsteady, *self._unsteady(mine)))),
            sick=tuple(dict.fromkeys((*facts.sick, *_sick(mine)))),
        )

    def _refuse_mounts_since(self, facts: RestoreFacts) -> None:
        """Raise StepFailed where something is mounted otherwise than when the facts were made."""
        lives = [self.target.folder, *(each.live for each in facts.outside)]
        lives += [each.server.data for each in facts.loads]
        lives += facts.server.folders if facts.server else ()
        refuse_mounts_since(self.target.host, lives, self.outside.mounts, "this restore")

    def _vital(self, mine: list[InspectedContainer], *, bare: bool) -> tuple[str, ...]:
        """Return the containers of databases that run; on a bare machine, that ran."""
        told = self.manifest.containers if self.manifest else ()
        unsteady = self._unsteady(mine)
        there = told if bare else tuple(each.container for each in mine)
        return tuple(
            each.name
            for each in there
            if each.running
            and each.name not in unsteady
            and self.settings.table.is_database(each.image)
        )

    def _unsteady(self, mine: list[InspectedContainer]) -> tuple[str, ...]:
        """Return the containers that do not stay up: which end, and are started again."""
        again = [each for each in mine if each.restarts or each.restarting]
        if not again:
            return ()
        now = self.target.host.run(Command(("date", "-u", "+%s"))).out
        return tuple(
            each.container.name
            for each in again
            if each.restarting or int(now) - _seconds_of(each.started) < YOUNG_S
        )

    def _mine(self, found: tuple[InspectedContainer, ...]) -> list[InspectedContainer]:
        """Return the containers of the stack, and those that mount what else is put in place."""
        mine = of_stack(found, self.target.folder)
        names = {each.container.name for each in (*mine, *self.outside.users(found))}
        return [each for each in found if each.container.name in names]

    def _to_stop(
        self,
        mine: list[InspectedContainer],
        server: Server | None,
        outside: tuple[OutsideItem, ...],
        *,
        idle: bool = False,
    ) -> tuple[str, ...]:
        folder = self.target.folder
        told = self.manifest.included("general") if self.manifest else ()
        places = [f"{folder}/{each}" for each in told if self._names_included(each, mine)]
        places += [each.live for each in outside]
        name = server.container if server else ""
        return self.only.to_stop(mine, folder, name, places, idle=idle)

    def _names_included(self, path: str, mine: Iterable[InspectedContainer]) -> bool:
        """Tell whether --only names an included path, or a container that mounts it."""
        live = f"{self.target.folder}/{path}"
        return posixpath.basename(path) in self.request.names or any(
            is_in(mount.on_host, live) or is_in(live, mount.on_host)
            for each in mine
            if each.container.name in self.request.names
            for mount in each.mounts
        )

    def _kinds(self, found: tuple[InspectedContainer, ...]) -> tuple[str, ...]:
        """Return the parts that are restored; raises Refused where one cannot be."""
        if self.influx2.container and {self.influx2.container, "influxdb2"} & {
            *self.request.names
        }:
            raise Refused(f"{self.influx2.advice} Nothing was changed.")
        loads = SqlImports(self.target, found, self.manifest, self.stage, self.request.names)
        servers = located_in(self.target.host, found, self.settings.table, self.target.docker)
        engines = loads.engines(self.backup.parts, servers)
        return self.only.kinds(engines, outside=self.outside.holds_any)

    def _refuse_without_server(self, compose: tuple[str, ...], name: str) -> None:
        told = self.target.host.run(Command((*compose, "config"), ANY_EXIT))
        named_there = rf"^\s*(container_name: ['\"]?{re.escape(name)}['\"]?|{re.escape(name)}:)$"
        if told.exit_code:
            self.report.warn(
                f"  Whether docker-compose.yml has a service {name} to load its dump into cannot "
                f"be told, as compose does not read it: {told.last_line}"
            )
        elif not re.search(named_there, told.out, re.MULTILINE):
            raise Refused(
                f"On {self.target.name} docker-compose.yml has no service {name} to load its "
                "dump into. Add it, or restore the other services one by one: --only NAME."
            )

    def needs(self, facts: RestoreFacts) -> dict[str, int]:
        """Return how many bytes the restore takes on the disk, by what for."""
        fetched = not facts.in_place
        needed = sizes_unpacked(self.backup, self.manifest, facts.kinds, fetched=fetched)
        if facts.server and facts.databases:
            words = ("du", "-sbc", "--", *facts.server.folders)
            told = stat_on(self.target.host, words, facts.as_root, 600).split()
            needed["the copy of InfluxDB's data"] = int(told[-2]) if told else 0
        if facts.stays_bytes:
            needed["databases that stay"] = facts.stays_bytes
        return needed

    def refuse_without_room(self, facts: RestoreFacts) -> None:
        """Raise Refused where the restore would not fit, with numbers, or cannot be a rename."""
        self._refuse_mounts(facts)
        refuse_stage_apart(self.target)
        needed = self.needs(facts)
        self._refuse_folder(self.target.folder, facts.free_bytes, needed)
        if facts.volumes_apart:
            volumes = f"{self.target.folder}/volumes"
            del needed["the archives"]
            self._refuse_folder(volumes, self.target.host.free_bytes(volumes) or 0, needed)
        self._refuse_copies(facts)

    def _refuse_copies(self, facts: RestoreFacts) -> None:
        """Raise Refused where what is copied to other file systems does not fit there."""
        for folder, size in self._copied_to(facts).items():
            free = self.target.host.free_bytes(folder)
            if free is not None and free < size:
                self._refuse_folder(folder, free, {"what is copied there": size})

    def _copied_to(self, facts: RestoreFacts) -> dict[str, int]:
        """Return how much is copied to other file systems first, by a folder of each."""
        host = self.target.host
        folders: dict[str, str] = {}
        needed: dict[str, int] = {}
        sizes = self.manifest.sizes if self.manifest else {}
        places = [
            (each.live if each.is_mount else posixpath.dirname(each.live), each.size_bytes)
            for each in facts.outside
            if each.fresh
        ]
        names = {posixpath.relpath(e.live, self.target.folder): e for e in facts.items if e.fresh}
        places += [(each.live, sizes.get(name, (0, 0))[0]) for name, each in names.items()]
        for place, size in places:
            folder = place
            while not may_be_there(host, folder):
                folder = posixpath.dirname(folder)
            known = folders.setdefault(device(host, folder, self.target.as_root), folder)
            needed[known] = needed.get(known, 0) + size
        return {folder: size for folder, size in needed.items() if size}

    def _swapped_within(
        self, facts: RestoreFacts, items: Iterable[Item], *, staged: bool
    ) -> list[Item]:
        """Return the items; of those that are mount points, the entries are swapped.

        Not where more is mounted or put in place below one: that stays refused.
        """
        points = mount_points(self.target.host)
        dumped = [each.server.data for each in facts.loads]
        dumped += facts.server.folders if facts.server else ()
        dumped += [f"{self.target.folder}/{recipe.folder}" for recipe in RECIPES.values()]

        def is_alone(path: str) -> bool:
            more = (each for each in points if each != path)
            return path in points and not any(is_in(e, path) for e in (*dumped, *more))

        chosen = []
        for each in items:
            places = (each.live, each.staged) if staged else (each.live,)
            is_swapped = is_alone(each.live) and self._are_folders(*places)
            chosen.append(within_mount(each, facts.previous) if is_swapped else each)
        return chosen

    def _are_folders(self, *paths: str) -> bool:
        """Tell whether all paths are folders, and no links to such."""
        script = 'for each; do [ -d "$each" ] && [ ! -L "$each" ] || exit 1; done'
        words = (*self.target.as_root, "sh", "-c", script, "sh", *paths)
        return self.target.host.run(Command(words, frozenset({0, 1}))).exit_code == 0

    def _refuse_folder(self, folder: str, free_bytes: int, needed: dict[str, int]) -> None:
        total = sum(needed.values())
        if free_bytes < total:
            listed = ", ".join(f"{size_text(e)} for {what}" for what, e in needed.items() if e)
            is_stack = folder == self.target.folder
            above, name = (f"{folder}/{RESTORE}" if is_stack else folder), "previous-"
            name = name if is_stack else f".{name}"
            kept = entries(self.target.host, above, self.target.as_root)
            advice = (
                f", for example by removing what earlier restores kept: {above}/{name}…."
                if any(each.startswith(name) for each in kept)
                else "."
            )
            raise Refused(
                f"On {self.target.name} {size_text(free_bytes)} are free in {folder}, and this "
                f"restore needs about {size_text(total)}: {listed}. What is replaced is kept as "
                f"well. Nothing was changed. Make room there{advice}{self._kept_told()}"
            )

    def _kept_told(self) -> str:
        """Return how many old states there are, and what tells more of them; '' for none."""
        target = self.target
        told = states_told(target.host, target.folder, target.as_root)
        far = host_flag(self.request.host)
        return f" {told}: inv undo --list{far} tells which." if told else ""

    def records(self) -> dict[str, Record]:
        """Return what the manifest says of the archives, where they come from."""
        return records_in(self.manifest, self.runtag)

    def contents(self, facts: RestoreFacts) -> Contents | None:
        """Return what the general part holds, read where it lies; None where that cannot be.

        Raises StepFailed, as unpacking it would, where it is damaged or must not be unpacked.
        """
        if "general" not in facts.kinds or not callable(getattr(self.source.storage, "run", None)):
            return None
        path = f"{self.source.folder}/{self.runtag}.{KINDS['general']}"
        side = sealed_side(self.source.storage)
        if side and side.is_sealed(path):
            return None
        as_root = facts.as_root if facts.in_place else ()
        found = list_archive(
            self.source.storage,  # type: ignore[arg-type]
            path,
            as_root,
            included=facts.included,
        )
        refuse_members(posixpath.basename(path), found)
        return found

    def contents_told(
        self, facts: RestoreFacts, top_files: Collection[str] | None
    ) -> Contents | None:
        """Return the same as its manifest tells it, without reading the archive where it does.

        `top_files`: None if they are not known without that.
        """
        sizes = self.manifest.sizes if self.manifest else {}
        items = {path for path in sizes if path.count("/") == 1 and path.split("/")[0] in FOLDERS}
        items = self._as_here(items)
        if "general" in facts.kinds and not items:
            return self.contents(facts)
        return Contents(
            items=items,
            top_files={*(top_files or ())},
            tops_known=top_files is not None,
            included={*facts.included},
        )

    def with_items(self, facts: RestoreFacts, contents: Contents | None = None) -> RestoreFacts:
        """Return the facts with what is swapped: each entry of services/ and volumes/.

        Of what is staged, or of what an archive holds that is not staged yet.
        """
        facts = self._with_around(self._with_swapped(facts, contents))
        found = inspect_all(self.target.host, self.target.docker)
        return self._with_more(facts, found, facts.loads, staged=contents is None)

    def _with_swapped(self, facts: RestoreFacts, contents: Contents | None) -> RestoreFacts:
        if "general" not in facts.kinds:
            facts, _ = self._with_loads(facts, [], staged=contents is None)
            facts = self._with_recipes(facts, staged=contents is None)
            self._refuse_mounts(facts)
            return self._with_stays(facts)
        host, root = self.target.host, self.target.as_root
        stack = f"{self.stage}/stack"
        top = dict.fromkeys(contents.top_files, "f") if contents else entries(host, stack, root)
        items = []
        for folder in FOLDERS:
            staged = f"{stack}/{folder}"
            if folder == "volumes" and facts.volumes_apart:
                staged = f"{self.target.folder}/volumes/.restore-{self.runtag}/stack/volumes"
            names = (
                [
                    each.partition("/")[2]
                    for each in contents.items
                    if each.startswith(f"{folder}/")
                ]
                if contents
                else entries(host, staged, root)
            )
            items += [
                self._item(facts, f"{folder}/{name}", f"{folder}/{name}", f"{staged}/{name}")
                for name in sorted(names)
                if f"{folder}/{name}" not in EMPTY_FOLDERS
                or self._holds_files(f"{folder}/{name}", staged, there=contents is None)
            ]
        there = entries(host, self.target.folder)
        wanted = [*self.only.named(items), *self._included_items(facts, contents)]
        facts, chosen = self._with_loads(facts, wanted, staged=contents is None)
        self.only.refuse_absent([*items, *wanted], facts.loads, self.outside.held)
        wanted_top = [name for name in sorted(top) if top[name] == "f" and is_top_file(name)]
        same = self._same(stack, [name for name in wanted_top if name in there and not contents])
        self.same = sorted(same)
        for name in wanted_top if not self.request.only else ():
            if name not in same:
                is_beside = name in there and not self.takes_compose
                live = f"{name}.{self.runtag}" if is_beside else name
                item = self._item(facts, name, live, f"{stack}/{name}")
                chosen.append(replace(item, is_top_file=not (name in there and not is_beside)))
        compose = facts.compose
        if "--file" not in compose:
            file = next((n for each in (top, there) for n in COMPOSE_FILES if n in each), "")
            chosen_files = () if contents else self._chosen(stack, top, root)
            words = project_words(self.target.folder, file, {**there, **top}, chosen_files)
            compose = (*compose[: compose.index("--project-directory")], *words)
        if self.request.only and not (chosen or facts.loads or facts.server or facts.outside):
            raise Refused(
                f"{self.runtag} holds nothing of {', '.join(self.request.names)} that could be "
                f"put in place. Nothing of the stack was touched. inv show '{self.runtag}' tells "
                "what it lacks."
            )
        chosen = self._swapped_within(facts, chosen, staged=contents is None)
        facts = replace(facts, items=tuple(chosen), compose=compose)
        if not contents and self._is_new(facts, there):
            names = [each for each in (*COMPOSE_FILES, *wanted_top, *FOLDERS) if each in top]
            facts = replace(facts, owner_file=f"{stack}/{names[0]}" if names else "")
        names = [posixpath.relpath(each.live, self.target.folder) for each in items]
        facts = replace(facts, folders=tuple(self._folders_more(facts, names)))
        facts = self._with_recipes(facts, staged=contents is None)
        self._refuse_mounts(facts)
        self._refuse_copies(facts)
        return self._with_stays(facts)

    def _is_new(self, facts: RestoreFacts, there: Collection[str]) -> bool:
        """Tell whether the stack's folder holds nothing yet, and root, who made it, is us."""
        if not facts.bare or self.target.as_root or {*there} - {BACKUPS, RESTORE}:
            return False
        host = self.target.host
        told = host.run(Command(("stat", "-L", "-c", "%u", "--", self.target.folder))).out
        return told.strip() == host.run(Command(("id", "-u"))).out.strip() == "0"

    def _with_around(self, facts: RestoreFacts) -> RestoreFacts:
        """Return the facts with the folders that are missing around what is put in place."""
        folder, server = self.target.folder, facts.server
        placed_there: tuple[Item | OutsideItem, ...] = (*facts.items, *facts.outside)
        within = [each.live for each in placed_there]
        lives = [*within, *(each.server.data for each in facts.loads)]
        lives += server.folders if server and not server.within else ()
        lives += [link for each in facts.outside for link in each.links]
        wanted = folders_around(filter(None, lives), within)
        host, root = self.target.host, self.target.as_root  # it sees below folders of mode 0700
        there = which_may_be_there(host, wanted, root) if lives else frozenset()
        staged = f"{self.stage}/stack"

        def like(path: str) -> str:
            name = posixpath.relpath(path, folder)
            is_packed = name.partition("/")[0] in FOLDERS  # not what is around an included path
            return f"{staged}/{name}" if is_packed else ""

        around = (Around(e, live, like(e)) for e, live in wanted.items() if e not in there)
        return replace(facts, around=tuple(around))

    def _as_here(self, names: Iterable[str]) -> set[str]:
        """Return names of the manifest, in which bytes that are no UTF-8 are told, as they are."""
        here = (posixpath.relpath(each, self.target.folder) for each in self.present())
        meant = {shown(each): each for each in here}
        return {meant.get(each, each) for each in names}

    def _folders_more(self, facts: RestoreFacts, held: Collection[str]) -> Iterator[Item]:
        """Yield what is in services/ and volumes/ and not in a backup that holds these of it.

        Not where data of a database or of a service with a part of its own lie, where more is
        mounted, nor what the backup left out: that stays in any case.
        """
        if self.request.only or self.manifest is None:
            return
        folder, host = self.target.folder, self.target.host
        found = inspect_all(host, self.target.docker)
        servers = located_in(host, found, self.settings.table, self.target.docker)
        others = [at for each in servers for at in (each.data, *each.apart)]
        others += [each.server.data for each in facts.loads]
        others += facts.server.folders if facts.server else ()
        others += [each.data for each in self._undumped_influx(found, facts)]
        others += [f"{folder}/{recipe.folder}" for recipe in RECIPES.values()]
        others += [f"{folder}/{each}" for each in (*EMPTY_FOLDERS, *facts.included)]
        others += [f"{folder}/{plain_place(each.what)}" for each in self.manifest.left_out]
        others += [each.live for each in facts.outside]
        others += mount_points(host)
        for path in sorted(self.present()):
            name = posixpath.relpath(path, folder)
            if name not in held and not any(is_in(each, path) for each in others):
                yield self._item(facts, name, name, "")
        mine = [f"{folder}/{each}" for each in facts.included]
        for path in sorted(which_may_be_there(host, self._included_within())):
            around = any(is_in(path, each) for each in mine)
            if not around and not any(is_in(each, path) for each in others):
                yield self._as_included(facts, posixpath.relpath(path, folder), "")

    @cached_property
    def _inclusions(self) -> tuple[str, ...]:
        """The paths that rows of the target's settings include."""
        there = self.settings
        if self.request.host:
            machine = find_machine(there, self.request.host)
            there = there.of_machine(machine, self.target.folder)
        folder = self.target.folder
        rows = (posixpath.join(folder, each.path) for each in there.stack.inclusions)
        return tuple(map(posixpath.normpath, rows))

    def _included_within(self) -> list[str]:
        """Return those in the stack's folder, but in no other row and in no folder of its own."""
        folder, known = self.target.folder, (*FOLDERS, BACKUPS, RESTORE)
        tops = [f"{folder}/{each}" for each in known]
        rows = self._inclusions
        return [
            path
            for path in rows
            if path != folder and is_in(path, folder)
            if not any(is_in(path, each) for each in (*tops, *(e for e in rows if e != path)))
        ]

    def _beyond(
        self, facts: RestoreFacts, found: tuple[InspectedContainer, ...]
    ) -> tuple[str, ...]:
        """Return the volumes and the included paths here, outside, that the backup does not hold.

        Not what it left out on purpose, nor where data of a database lie.
        """
        if self.request.only or self.manifest is None:
            return ()
        folder = self.target.folder
        held = {each.live for each in facts.outside}
        told = [each.get("restore_to") or each["path"] for each in self.manifest.outside]
        held |= {str(each) for each in told}
        left_out = {each.what for each in self.manifest.left_out}
        servers = located_in(self.target.host, found, self.settings.table, self.target.docker)
        data = [at for each in servers for at in (each.data, *each.apart)]
        data += facts.server.folders if facts.server else ()
        paths = [each for each in self._inclusions if not is_in(each, folder) and each != folder]
        there = which_may_be_there(self.target.host, paths)
        names = [
            each
            for each in sorted(there - left_out)
            if not any(is_in(each, one) or is_in(one, each) for one in held)
        ]
        mounts = {
            mount.volume: mount.on_host
            for each in self._mine(found)
            for mount in each.mounts
            if mount.volume and not ANONYMOUS.fullmatch(mount.volume)
        }
        titles = {
            f"{VOLUME}{name}"
            for name, place in mounts.items()
            if not any(is_in(place, one) for one in held)
            and not any(is_in(each, place) for each in data if each)
        }
        return (*names, *sorted(titles - left_out - self.outside.titles))

    def _same(self, stack: str, names: list[str]) -> set[str]:
        """Return the top files that lie on the target as they are staged, byte for byte.

        Raises StepFailed where that cannot be told; what is no file there is another thing.
        """
        folders = (self.target.folder, stack)
        words = (*self.target.as_root, "sh", "-c", SAME, "sh", *folders, *names)
        command = Command(words, timeout_s=600, label=shlex.join(("cmp", *folders)))
        told = self.target.host.run(command).out if names else ""
        return {*filter(None, told.split("\0"))}

    def _chosen(
        self, folder: str, there: Mapping[str, str], as_root: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        """Return the compose files that COMPOSE_FILE in the `.env` of a folder names."""
        if ".env" not in there:
            return ()
        return chosen_files(read_text(self.target.host, f"{folder}/.env", as_root))

    def _with_stays(self, facts: RestoreFacts) -> RestoreFacts:
        """Return the facts with what the backup left out of the items and lies there.

        Not where data of a database lie, which a dump replaces.
        """
        folder = self.target.folder
        data = [each.server.data for each in facts.loads]
        data += facts.server.folders if facts.server else ()
        wanted = {
            pattern: f"{folder}/{plain_place(pattern)}"
            for pattern in (self.manifest.stays if self.manifest else ())
            if any(
                patterns_below((pattern,), posixpath.relpath(each.live, folder))
                for each in facts.items
            )
        }

        def is_kept(place: str) -> bool:
            of_data = any(is_in(each, place) or is_in(place, each) for each in data)
            return not of_data and may_be_there(self.target.host, place)

        outside = tuple(
            replace(
                each,
                stays=tuple(
                    (pattern, below)
                    for pattern, below in each.stays
                    if is_kept(f"{each.live}/{plain_place(below)}")
                ),
            )
            for each in facts.outside
        )
        stays = tuple(pattern for pattern, place in wanted.items() if is_kept(place))
        return replace(facts, stays=stays, outside=outside)

    def _included_items(self, facts: RestoreFacts, contents: Contents | None) -> Iterator[Item]:
        """Yield what is swapped of the paths that the general part holds besides the usual."""
        host, root = self.target.host, self.target.as_root
        found = (
            inspect_all(host, self.target.docker) if self.request.only and facts.included else ()
        )
        for path in facts.included:
            staged = f"{self.stage}/stack/{path}"
            above, name = posixpath.split(staged)
            held = path in contents.included if contents else name in entries(host, above, root)
            if held and (not self.request.only or self._names_included(path, self._mine(found))):
                yield self._as_included(facts, path, staged)

    def _as_included(self, facts: RestoreFacts, path: str, staged: str) -> Item:
        """Return an item besides services/ and volumes/: it is put aside where no other is."""
        aside, used = (
            f"{folder(facts, path)}/included/{path}" for folder in (aside_folder, used_folder)
        )
        return replace(self._item(facts, path, path, staged), aside=aside, used=used)

    def _with_recipes(self, facts: RestoreFacts, *, staged: bool) -> RestoreFacts:
        """Return the facts with what is swapped of services that have a part of their own.

        It comes behind the items, which may put the folder around it in place.
        """
        host, root = self.target.host, self.target.as_root
        items, quiet = [], []
        for kind in (each for each in facts.kinds if each in RECIPES):
            if self.request.only and kind not in self.request.names:
                continue  # its database alone was asked for
            recipe = RECIPES[kind]
            folder = recipe_folder(self.target, self.stage, kind, facts)
            quiet.append((kind, self._container_of(kind)))
            for path in recipe.paths:
                above, name = posixpath.split(f"{folder}/{path}")
                if staged and name not in entries(host, above, root):
                    continue  # what the part does not hold stays
                live = f"{recipe.folder}/{path}"
                item = self._item(facts, live, live, f"{above}/{name}")
                # Not within the old folder, which is put aside whole where it is an item as well.
                aside, used = (
                    f"{each(facts, live)}/parts/{kind}/{path}"
                    for each in (aside_folder, used_folder)
                )
                items.append(replace(item, aside=aside, used=used))
        return replace(facts, items=(*facts.items, *items), quiet=tuple(quiet))

    def _container_of(self, kind: str) -> str:
        """Return the container of a service with a recipe: the one here, or that of its name."""
        found = inspect_all(self.target.host, self.target.docker)
        table = self.settings.table
        services = ((each.container.name, table.service_of(each.container)) for each in found)
        return next((name for name, service in services if service and service.name == kind), kind)

    def _with_loads(
        self, facts: RestoreFacts, items: list[Item], *, staged: bool
    ) -> tuple[RestoreFacts, list[Item]]:
        """Return the facts with the dumps of SQL that are loaded, and the items beside them.

        What holds the data of a server for which there is no dump stays out of the items.
        """
        found = inspect_all(self.target.host, self.target.docker)
        loads = SqlImports(self.target, found, self.manifest, self.stage, self.request.names)
        chosen = loads.choose(facts, items, staged=staged)
        if "--file" in facts.compose:
            for each in chosen:
                if not each.there:
                    self._refuse_without_server(facts.compose, each.server.container)
        if staged:
            servers = (
                *located_in(self.target.host, found, self.settings.table, self.target.docker),
                *self._undumped_influx(found, facts),
            )
            self.kept.clear()
            items = loads.keep_data(facts, items, chosen, servers, self._keep)
            outside = loads.keep_data(facts, facts.outside, chosen, servers, self._keep)
            outside = without_new_data(outside, chosen, self._keep)
            facts = replace(facts, outside=tuple(outside))
        items = self.influx2.without_data(items, found)
        return replace(facts, loads=chosen), items

    def _keep(self, told: str) -> None:
        self.kept.append(told)
        self.report.warn(f"  {told}")

    def _undumped_influx(
        self, found: tuple[InspectedContainer, ...], facts: RestoreFacts
    ) -> list[SqlServer]:
        """Return the folders of an InfluxDB here that the backup has no dump for, one by one."""
        influx = named(found, self.influx)
        if influx is None or "influx" in facts.kinds:
            return []
        places = (path_on_host(influx.mounts, each) for each in FOLDERS_INSIDE)
        return [SqlServer(influx.container.name, "influx", each) for each in places if each]

    def _holds_files(self, name: str, above: str, *, there: bool) -> bool:
        """Tell whether a folder that mostly is empty holds files: staged, or as it is told."""
        if there:
            path = f"{above}/{posixpath.basename(name)}"
            words = ("find", path, "-mindepth", "1", "-not", "-type", "d", "-print", "-quit")
            return bool(stat_on(self.target.host, words, self.target.as_root, 600))
        left_out = self.manifest.left_out if self.manifest else ()
        return bool(left_out) and not any(each.what == f"{name}/*" for each in left_out)

    def _item(self, facts: RestoreFacts, name: str, live: str, staged: str) -> Item:
        return Item(
            staged=staged,
            live=f"{self.target.folder}/{live}",
            aside=f"{aside_folder(facts, name)}/{name}",
            used=f"{used_folder(facts, name)}/{name}",
        )

    def present(self) -> set[str]:
        """Return what there is in services/ and volumes/, as paths of the target."""
        return {
            f"{self.target.folder}/{top}/{name}"
            for top in FOLDERS
            for name in entries(
                self.target.host, f"{self.target.folder}/{top}", self.target.as_root
            )
            if not is_of_restores(f"volumes/{name}")
        }


def _seconds_of(moment: str) -> float:
    """Return a time that Docker tells, in UTC, as seconds of the epoch."""
    return datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()


def project_words(
    folder: str, compose_file: str, there: Mapping[str, str], chosen: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the words that name the stack and its compose files: v1 looks in the current folder.

    `chosen`: the files that COMPOSE_FILE names. From the folder of the first one on its relative
    paths count, wherever `.env` is.
    """
    names = [compose_file] if compose_file else []
    if compose_file == COMPOSE_FILES[0]:
        names += [name for name in OVERRIDES if name in there]
    paths = [posixpath.normpath(posixpath.join(folder, each)) for each in chosen or names]
    at = posixpath.dirname(paths[0]) if chosen else folder
    variables = ("--env-file", f"{folder}/.env") if at != folder else ()
    files = (word for path in paths for word in ("--file", path))
    return ("--project-directory", at, *variables, *files)
