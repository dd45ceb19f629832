"""The plan of a restore, made of facts about its target, a backup, and the request.

Pure: no queries, no reading, no clock. Queries of the target are in facts.py; disk checks are in
disk_checks.py.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from ...backups.bundles import RECIPES
from ...backups.manifest import VOLUME, Manifest
from ...backups.sets import BackupSet
from ...core.dataclass import dataclass
from ...core.errors import Refused
from ...core.stack_folders import BACKUPS, FOLDERS, RESTORE
from ...databases.influxdb.dump import BACKUP_INSIDE, FOLDERS_INSIDE
from ...databases.sql.servers import SqlServer
from ...databases.sqlite.files import shown
from ...environment.stack_host import find_machine
from ...settings.model import Settings
from ...stack.compose import (
    ANONYMOUS,
    COMPOSE_FILES,
    InspectedContainer,
    is_top_file,
    named,
    of_stack,
)
from ...stack.inside import is_in, path_on_host
from ...stack.left_out import plain_place
from ...workflows.restore import Item, OutsideItem, RestoreFacts, aside_folder, used_folder
from .facts import EMPTY_FOLDERS, Candidates, TargetFacts
from .request import RestoreRequest
from .selection import Selection

OVERRIDES = ("docker-compose.override.yml", "docker-compose.override.yaml")
"""What compose reads besides docker-compose.yml, by default."""
YOUNG_S = 60.0
"""A container that ended before, and has been up no longer than this, may end again."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes the plan of one restore, by facts of one moment."""

    here: TargetFacts
    request: RestoreRequest
    settings: Settings
    backup: BackupSet
    manifest: Manifest | None
    in_place: bool
    """The archives are in the target's own backups/."""
    users: frozenset[str] = frozenset()
    """The containers that mount what is put in place outside of the stack's folder."""
    influx: str = ""
    """The container of InfluxDB."""
    takes_compose: bool = False
    """The backup's compose file and `.env` replace existing ones."""

    # Decisions from the facts

    def decided(self) -> Planner:
        """Return a planner that keeps its decisions, whatever later facts are."""
        is_new = self.bare and not any(each in self.here.tops for each in COMPOSE_FILES)
        takes_compose = (self.request.compose or is_new) and "general" in self.backup.parts
        influx = influx_container(self.settings, self.manifest, self.here.containers)
        return replace(self, influx=influx, takes_compose=takes_compose)

    @property
    def selection(self) -> Selection:
        """What of the backup was requested."""
        return Selection(self.request, self.backup, self.manifest, self.influx)

    @property
    def stage(self) -> str:
        """The folder to unpack the backup into."""
        return f"{self.here.folder}/{RESTORE}/{self.backup.runtag}"

    @property
    def no_stack(self) -> bool:
        """No container of the stack exists yet, and all of it was requested."""
        return not (self.request.only or of_stack(self.here.containers, self.here.folder))

    @property
    def mine(self) -> list[InspectedContainer]:
        """The containers of the stack, and those that mount other data that are put in place."""
        found = self.here.containers
        names = {each.container.name for each in of_stack(found, self.here.folder)} | self.users
        return [each for each in found if each.container.name in names]

    @property
    def bare(self) -> bool:
        """Everything is brought up from the restored compose file."""
        return not self.mine and not self.request.only

    @property
    def tops_here(self) -> bool:
        """Compose files or a .env exist here."""
        return any(map(is_top_file, self.here.tops))

    @property
    def compose_here(self) -> str:
        """The compose file that exists here and counts; '' if the backup's counts, or none."""
        tops = self.here.tops
        return "" if self.takes_compose else next((n for n in COMPOSE_FILES if n in tops), "")

    def refuse_bare(self) -> None:
        """Raise Refused if a machine was declared without containers, and has some."""
        if self.request.bare and self.mine:
            names = ", ".join(each.container.name for each in self.mine)
            raise Refused(
                f"On {self.here.name} the stack has containers ({names}), but --bare is for a "
                "machine without containers. Nothing was changed. Leave out --bare, or use "
                "--compose, which restores the backup's compose file and .env."
            )

    def compose(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Return the compose command for the stack; `chosen`: the files that its .env names."""
        here = self.here
        words = project_words(here.folder, self.compose_here, here.tops, chosen)
        return (*here.compose, *words)

    # Steps, before the contents of the archives are known

    def plan(self, kinds: tuple[str, ...], asked: Candidates, limit_s: float) -> RestoreFacts:
        """Return the plan without its items: these are known from the archive."""
        here, manifest, server = self.here, self.manifest, asked.server
        told = manifest.containers if manifest else ()
        loaded = server.container if server else ""
        facts = RestoreFacts(
            kinds=kinds,
            in_place=self.in_place,
            access=here.access,
            compose=self.compose(asked.compose_files),
            previous=asked.previous,
            items=(),
            running=self.to_stop(loaded, asked.outside),
            idle=self.to_stop(loaded, asked.outside, idle=True),
            expected=tuple(each.name for each in told if each.running),
            bare=self.bare,
            server=server,
            server_there=named(here.containers, self.influx) is not None,
            databases=self.request.databases,
            dump_inside=posixpath.join(BACKUP_INSIDE, self.backup.runtag, "influx"),
            free_bytes=here.free_bytes,
            limit_s=limit_s,
            volumes_apart=here.volumes_apart,
            influx_apart=asked.influx_apart,
            influx_pieces=asked.influx_pieces,
            included=manifest.included("general") if manifest else (),
            outside=asked.outside,
            fillings=asked.fillings,
            volumes=asked.volumes,
            vital=self.vital(bare=self.bare),
            unsteady=self.unsteady,
            sick=self.sick,
            strict=self.request.strict,
            outside_paths=manifest.included("outside") if manifest else (),
            exact=self.request.exact,
        )
        if "general" in kinds and manifest and manifest.sizes:
            folders = self.folders_more(facts, self.as_here(manifest.sizes))
            facts = replace(facts, folders=tuple(folders))
        return replace(facts, beyond=self.beyond(facts, asked.titles))

    def again(self, facts: RestoreFacts) -> RestoreFacts:
        """Return a plan with the containers that run now: fetching may have taken hours."""
        loaded = facts.server.container if facts.server else ""
        return replace(
            facts,
            running=self.to_stop(loaded, facts.outside),
            vital=self.vital(bare=facts.bare),
            unsteady=tuple(dict.fromkeys((*facts.unsteady, *self.unsteady))),
            sick=tuple(dict.fromkeys((*facts.sick, *self.sick))),
        )

    def to_stop(
        self, loaded: str, outside: Iterable[OutsideItem], *, idle: bool = False
    ) -> tuple[str, ...]:
        """Return the containers to stop, or with `idle` those that do not run.

        `loaded`: the container of InfluxDB, if a dump is loaded into it; else ''.
        """
        folder = self.here.folder
        told = self.manifest.included("general") if self.manifest else ()
        places = [f"{folder}/{each}" for each in told if self.names_included(each)]
        places += [each.live for each in outside]
        mine = [each for each in self.mine if not (idle and each.restarting)]
        return self.selection.to_stop(mine, folder, loaded, places, idle=idle)

    def names_included(self, path: str) -> bool:
        """Return whether --only names an included path, or a container that mounts it."""
        live = f"{self.here.folder}/{path}"
        return posixpath.basename(path) in self.request.names or any(
            is_in(mount.on_host, live) or is_in(live, mount.on_host)
            for each in self.mine
            if each.container.name in self.request.names
            for mount in each.mounts
        )

    def vital(self, *, bare: bool) -> tuple[str, ...]:
        """Return the containers of databases that run; on a bare machine, that ran."""
        told = self.manifest.containers if self.manifest else ()
        there = told if bare else tuple(each.container for each in self.mine)
        unsteady = self.unsteady
        return tuple(
            each.name
            for each in there
            if each.running
            and each.name not in unsteady
            and self.settings.table.is_database(each.image)
        )

    @property
    def unsteady(self) -> tuple[str, ...]:
        """The containers that do not stay up: they end and are restarted."""
        return tuple(
            each.container.name
            for each in self.mine
            if each.restarting
            or (each.restarts and self.here.now_s - _seconds_of(each.started) < YOUNG_S)
        )

    @property
    def sick(self) -> tuple[str, ...]:
        """The containers that run, and whose health check fails."""
        sick = (each.container for each in self.mine if each.health == "unhealthy")
        return tuple(each.name for each in sick if each.running)

    # What is here and not in the backup

    def as_here(self, names: Iterable[str]) -> set[str]:
        """Return names of the manifest unescaped: it escapes bytes that are not UTF-8."""
        here = (posixpath.relpath(each, self.here.folder) for each in self.here.present)
        meant = {shown(each): each for each in here}
        return {meant.get(each, each) for each in names}

    def folders_more(self, facts: RestoreFacts, held: Collection[str]) -> Iterator[Item]:
        """Yield what is in services/ and volumes/ and not in a backup that holds these of it.

        Without data of a database or of a service with a part of its own, paths with further
        mounts, and what the backup left out: that stays in any case.
        """
        if self.request.only or self.manifest is None:
            return
        folder = self.here.folder
        others = [at for each in self.here.servers for at in (each.data, *each.apart)]
        others += data_loaded(facts)
        others += [each.data for each in self.undumped_influx(facts)]
        others += [f"{folder}/{recipe.folder}" for recipe in RECIPES.values()]
        others += [f"{folder}/{each}" for each in (*EMPTY_FOLDERS, *facts.included)]
        others += [f"{folder}/{plain_place(each.what)}" for each in self.manifest.left_out]
        others += [each.live for each in facts.outside]
        others += self.here.mounts
        for path in sorted(self.here.present):
            name = posixpath.relpath(path, folder)
            if name not in held and not any(is_in(each, path) for each in others):
                yield self.item(facts, name, name, "")
        mine = [f"{folder}/{each}" for each in facts.included]
        for path in sorted(self.here.inclusions & {*self._included_within()}):
            around = any(is_in(path, each) for each in mine)
            if not around and not any(is_in(each, path) for each in others):
                yield self.as_included(facts, posixpath.relpath(path, folder), "")

    def _included_within(self) -> list[str]:
        """Return those in the stack's folder that are in no other row and no separate folder."""
        folder, known = self.here.folder, (*FOLDERS, BACKUPS, RESTORE)
        tops = [f"{folder}/{each}" for each in known]
        rows = inclusions(self.settings, self.request, folder)
        return [
            path
            for path in rows
            if path != folder and is_in(path, folder)
            if not any(is_in(path, each) for each in (*tops, *(e for e in rows if e != path)))
        ]

    def beyond(self, facts: RestoreFacts, titles: Collection[str]) -> tuple[str, ...]:
        """Return the volumes and included paths here, outside, that the backup does not hold.

        Without what it left out on purpose, and data of databases. `titles`: the volumes that it
        holds.
        """
        if self.request.only or self.manifest is None:
            return ()
        folder = self.here.folder
        held = {each.live for each in facts.outside}
        told = [each.get("restore_to") or each["path"] for each in self.manifest.outside]
        held |= {str(each) for each in told}
        left_out = {each.what for each in self.manifest.left_out}
        data = [at for each in self.here.servers for at in (each.data, *each.apart)]
        data += facts.server.folders if facts.server else ()
        rows = inclusions(self.settings, self.request, folder)
        there = {e for e in rows if not is_in(e, folder) and e != folder} & self.here.inclusions
        names = [
            each
            for each in sorted(there - left_out)
            if not any(is_in(each, one) or is_in(one, each) for one in held)
        ]
        mounts = {
            mount.volume: mount.on_host
            for each in self.mine
            for mount in each.mounts
            if mount.volume and not ANONYMOUS.fullmatch(mount.volume)
        }
        volumes = {
            f"{VOLUME}{name}"
            for name, place in mounts.items()
            if not any(is_in(place, one) for one in held)
            and not any(is_in(each, place) for each in data if each)
        }
        return (*names, *sorted(volumes - left_out - {*titles}))

    def undumped_influx(self, facts: RestoreFacts) -> list[SqlServer]:
        """Return the folders of an InfluxDB here that the backup has no dump for, one by one."""
        influx = named(self.here.containers, self.influx)
        if influx is None or "influx" in facts.kinds:
            return []
        places = (path_on_host(influx.mounts, each) for each in FOLDERS_INSIDE)
        return [SqlServer(influx.container.name, "influx", each) for each in places if each]

    # What is swapped

    def items_told(self, facts: RestoreFacts) -> list[Item]:
        """Return what is swapped of services/ and volumes/, by the manifest alone.

        If it does not list them, an entry for both, unless certain services were requested.
        """
        folder = self.here.folder
        sizes = self.manifest.sizes if self.manifest else {}
        names = [each for each in sizes if each.count("/") == 1 and each.split("/")[0] in FOLDERS]
        if not names and not self.request.only:
            names = [f"{top}/" for top in FOLDERS]
        items = [Item("", f"{folder}/{each}", "", "") for each in names]
        recipes = [each for each in facts.kinds if each in RECIPES]
        asked = [each for each in recipes if not self.request.only or each in self.request.names]
        places = (f"{folder}/{RECIPES[each].folder}/x" for each in asked)
        found = self.selection.named(items) if "general" in facts.kinds else []
        return [*found, *(Item("", each, "", "") for each in places)]

    def item(self, facts: RestoreFacts, name: str, live: str, staged: str) -> Item:
        """Return a swapped item, by the name of its aside folder."""
        return Item(
            staged=staged,
            live=f"{self.here.folder}/{live}",
            aside=f"{aside_folder(facts, name)}/{name}",
            used=f"{used_folder(facts, name)}/{name}",
        )

    def as_included(self, facts: RestoreFacts, path: str, staged: str) -> Item:
        """Return an item besides services/ and volumes/: its aside folder is a separate one."""
        aside, used = (
            f"{folder(facts, path)}/included/{path}" for folder in (aside_folder, used_folder)
        )
        return replace(self.item(facts, path, path, staged), aside=aside, used=used)


def told_of_influx(manifest: Manifest | None, fact: str) -> object:
    """Return a fact about the InfluxDB in a manifest, '' if missing."""
    made = manifest.made if manifest else ()
    return next((e.facts.get(fact) or "" for e in made if e.kind == "influx"), "")


def influx_container(
    settings: Settings, manifest: Manifest | None, found: Collection[InspectedContainer]
) -> str:
    """Return the container of InfluxDB: that of the settings, or of the backup.

    One that hosts.toml names has priority, then an existing one, then that of the backup.
    """
    told, name = str(told_of_influx(manifest, "container")), settings.influx.container
    if not told or settings.influx.named:
        return name
    return name if named(found, name) and not named(found, told) else told


def inclusions(settings: Settings, request: RestoreRequest, folder: str) -> tuple[str, ...]:
    """Return the paths that rows of the target's settings include, for a stack in a folder."""
    if request.host:
        settings = settings.of_machine(find_machine(settings, request.host), folder)
    rows = (posixpath.join(folder, each.path) for each in settings.stack.inclusions)
    return tuple(map(posixpath.normpath, rows))


def data_loaded(facts: RestoreFacts) -> list[str]:
    """Return the locations of the data that dumps replace."""
    data = [each.server.data for each in facts.loads]
    return [*data, *(facts.server.folders if facts.server else ())]


def _seconds_of(moment: str) -> float:
    """Return a time from Docker, in UTC, as seconds of the epoch."""
    return datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()


def project_words(
    folder: str, compose_file: str, there: Mapping[str, str], chosen: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the words that name the stack and its compose files: v1 uses the current folder.

    `chosen`: the files that COMPOSE_FILE names. Their relative paths refer to the folder of the
    first one, wherever `.env` is.
    """
    names = [compose_file] if compose_file else []
    if compose_file == COMPOSE_FILES[0]:
        names += [name for name in OVERRIDES if name in there]
    paths = [posixpath.normpath(posixpath.join(folder, each)) for each in chosen or names]
    at = posixpath.dirname(paths[0]) if chosen else folder
    variables = ("--env-file", f"{folder}/.env") if at != folder else ()
    files = (word for path in paths for word in ("--file", path))
    return ("--project-directory", at, *variables, *files)
