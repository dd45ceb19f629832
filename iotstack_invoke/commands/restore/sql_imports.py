"""Which database servers of a target load which dumps of SQL, and what prevents that."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...backups.bundles import RECIPES
from ...backups.manifest import Manifest
from ...core.dataclass import dataclass
from ...core.errors import Refused
from ...core.stack_folders import BACKUPS, FOLDERS, RESTORE
from ...databases.sql.load import (
    READ_LIMIT_S,
    major_of,
    staged_dumps,
    timescale_refusal,
    version_refusal,
)
from ...databases.sql.read_dump import PG_MADE_BY, PG_TIMESCALE
from ...databases.sql.servers import (
    ENGINES,
    MARIADB,
    SqlServer,
    located,
    placed,
    run_in,
    server_of,
)
from ...environment.stack_host import StackHost
from ...hosts.base import Command
from ...hosts.inspect import entries, first_match, has_line, mount_of, stat_on
from ...parts.bundle import DUMP, data_of
from ...stack.compose import InspectedContainer, named
from ...stack.inside import is_in, path_on_host
from ...stack.path_owners import volume_in
from ...stack.stack_holdings import is_system
from ...workflows.restore import (
    Item,
    OutsideItem,
    RestoreFacts,
    SqlImport,
    Swapped,
    aside_folder,
    used_folder,
)
from .outside import place_there

DEFAULT_DATA = {"mariadb": "volumes/{}/config/databases", "postgres": "volumes/{}/data"}
"""The data folders in IOTstack's templates, for a backup without them and no container."""


@dataclass(frozen=True, slots=True)
class SqlImports:
    """Selects the loads of one restore."""

    target: StackHost
    found: tuple[InspectedContainer, ...]
    manifest: Manifest | None
    stage: str
    only: tuple[str, ...]
    """The only services to restore; empty for all."""

    def choose(
        self, facts: RestoreFacts, items: Iterable[Item], *, staged: bool
    ) -> tuple[SqlImport, ...]:
        """Return the loads: of staged dumps, or of those in the manifest.

        Raises Refused if a server cannot load its dump.
        """
        chosen = self._choose_of_recipes(facts, staged=staged)
        for kind in (each for each in facts.kinds if each in ENGINES):
            folder = f"{self.stage}/{kind}"
            if staged:
                dumps = staged_dumps(self.target.host, folder, kind, self.target.as_root)
            else:
                servers = (SqlServer(name, kind) for name in self._told(kind))
                dumps = {
                    each.container: f"{folder}/{each.member.removesuffix('.gz')}"
                    for each in servers
                }
            for container, path in dumps.items():
                load = self._load(facts, kind, container, path, self._told(kind))
                wanted = container in self.only or any(
                    is_in(load.server.data, item.live) for item in items
                )
                if not self.only or wanted:
                    self._refuse(load)
                    chosen.append(load)
        return tuple(chosen)

    def _choose_of_recipes(self, facts: RestoreFacts, *, staged: bool) -> list[SqlImport]:
        """Return the loads of parts that hold a service with its database."""
        chosen = []
        for kind in (each for each in facts.kinds if each in RECIPES):
            path = f"{stages_of(self.stage, facts)[kind]}/{DUMP}"
            told = self._told(kind)
            root = self.target.as_root
            if staged and not entries(self.target.host, posixpath.dirname(path), root):
                continue
            container = next(iter(told), RECIPES[kind].database)
            load = replace(self._load(facts, MARIADB.name, container, path, told, kind), part=kind)
            self._refuse(load)
            chosen.append(load)
        return chosen

    def engines(self, kinds: Iterable[str], servers: Iterable[SqlServer]) -> set[str]:
        """Return the parts that hold a dump of a requested service, or of data in its folders.

        The contents of a part are in the manifest; without one it may hold dumps of the container
        of that name, and of `servers`, the present ones.
        """
        here = [(each.container, each.engine) for each in servers]
        places = [f"{self.target.folder}/{top}/{name}" for top in FOLDERS for name in self.only]
        wanted = set()
        for kind in (each for each in kinds if each in ENGINES):
            told = self._told(kind)
            known = {kind, *(name for name, engine in here if engine == kind)}
            for container in told or known:
                data = self._server(kind, container, told.get(container, {})).data
                if container in self.only or any(is_in(data, each) for each in places):
                    wanted.add(kind)
        return wanted

    def _told(self, engine: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the manifest's facts about the servers of one engine, by container."""
        parts = {part.kind: part for part in self.manifest.made} if self.manifest else {}
        servers = parts[engine].facts.get("servers", ()) if engine in parts else ()
        return {str(each.get("container")): each for each in servers}

    def _load(
        self,
        facts: RestoreFacts,
        engine: str,
        container: str,
        path: str,
        servers: Mapping[str, Mapping[str, Any]],
        recipe: str = "",
    ) -> SqlImport:
        there = named(self.found, container)
        server = self._server(engine, container, servers.get(container, {}), recipe)
        above = _beside(server.data, facts.outside)
        name = "volumes/x" if is_in(server.data, f"{self.target.folder}/volumes") else "x"
        aside, used = aside_folder(facts, name), used_folder(facts, name)
        fresh = f"{self.stage}/databases/{container}"
        if facts.volumes_apart and name.startswith("volumes/"):
            stage = f"{self.target.folder}/volumes/.restore-{posixpath.basename(self.stage)}"
            fresh = f"{stage}/databases/{container}"
        host, as_root, kept = self.target.host, self.target.as_root, "databases"
        if server.data and mount_of(host, above, as_root) != mount_of(host, aside, as_root):
            aside = f"{above}/.{posixpath.basename(facts.previous)}"
            used = f"{aside}-undone"
            fresh = f"{above}/.fresh-{container}"
            kept = ".databases"  # beside it are names equal to those of what it replaces
        unnamed = (
            engine == "mariadb" and has_line(host, "^USE `", path, as_root, READ_LIMIT_S) is False
        )
        return SqlImport(
            server=server,
            staged=path,
            fresh=fresh,
            aside=f"{aside}/{kept}/{container}",
            used=f"{used}/{kept}/{container}",
            there=there is not None,
            unnamed=unnamed,
            beside=unnamed and self._holds(server.data),
        )

    def _server(
        self, engine: str, container: str, told: Mapping[str, Any], recipe: str = ""
    ) -> SqlServer:
        """Return the server on the target that loads a dump, whether it exists or not."""
        there = named(self.found, container)
        if there is None:
            default = DEFAULT_DATA[engine].format(container)
            default = data_of(RECIPES[recipe]) if recipe else default
            data = str(told.get("data") or default)
            inside = str(told.get("inside") or posixpath.join(*ENGINES[engine].homes[0]))
            data = place_there(self.target, self.manifest, data)
            return SqlServer(container, engine, data, inside.rstrip("/"))
        server = server_of(there, engine)
        if there.container.running:
            server = located(self.target.host, server, there, self.target.docker)
        elif told.get("inside") and path_on_host(there.mounts, str(told["inside"])):
            server = placed(server, there, str(told["inside"]))
        if not server.data:
            return server
        # Links on the way are followed: the rename must move the data.
        words = (*self.target.as_root, "realpath", "-m", "--", server.data)
        return replace(server, data=self.target.host.run(Command(words)).out.rstrip("\n"))

    def _refuse(self, load: SqlImport) -> None:
        """Raise Refused if a server cannot load its dump."""
        server, name = load.server, self.target.name
        engine = ENGINES[server.engine]
        if not server.data:
            homes = " or ".join(mount for mount, _ in engine.homes)
            raise Refused(
                f"On {name} container {server.container} has no folder mapped to {homes}, so its "
                "data cannot be swapped. Nothing was changed. Map one, or restore the other "
                "services one by one: --only NAME."
            )
        if not load.there:
            refuse_place(self.target, server.container, server.data)
        if load.beside and self._leads_out(server.data):
            raise Refused(
                f"The dump of {server.title} is loaded into a copy of its data on {name}, to "
                "keep its other databases; but some of them are in separate folders (links, DATA "
                "DIRECTORY), which the copy would share with the original. Nothing was changed. "
                "Load it by hand, or restore the other services one by one: --only NAME."
            )
        if self._has_timescale(load):
            raise Refused(timescale_refusal(server))
        found = named(self.found, server.container)
        if server.engine != "postgres" or not found or not found.container.running:
            return
        told = self._version(load)
        if not told:
            return
        asked = run_in(self.target.docker, server, "ask", "SHOW server_version")
        here = self.target.host.run(asked).out.strip()
        if here and major_of(here) != major_of(told):
            raise Refused(version_refusal(server, told, here))

    def _version(self, load: SqlImport) -> str:
        """Return the version of PostgreSQL of a dump: by the manifest, or else by the dump."""
        told = self._told(load.server.engine).get(load.server.container, {}).get("version", "")
        if told:
            return str(told)
        pattern, as_root = f"^{PG_MADE_BY.decode()}[0-9.]*", self.target.as_root
        found = first_match(self.target.host, pattern, load.staged, as_root, READ_LIMIT_S)
        return (found or "").rpartition(" ")[2]

    def _leads_out(self, data: str) -> bool:
        """Return whether files of a MariaDB are links, or name an outside location (.isl)."""
        words = (*self.target.as_root, "find", data, "-mindepth", "1")
        links = ("(", "-type", "l", "-o", "-name", "*.isl", ")", "-print", "-quit")
        return bool(self.target.host.run(Command((*words, *links), timeout_s=READ_LIMIT_S)).out)

    def _has_timescale(self, load: SqlImport) -> bool:
        """Return whether a dump holds TimescaleDB: by the manifest, or else by the dump itself."""
        if load.server.engine != "postgres":
            return False
        told = self._told(load.server.engine).get(load.server.container)
        if told is not None:
            return bool(told.get("timescaledb"))
        pattern, as_root = f"^{PG_TIMESCALE.decode()}", self.target.as_root
        return bool(has_line(self.target.host, pattern, load.staged, as_root, READ_LIMIT_S))

    def keep_data(
        self,
        facts: RestoreFacts,
        items: Iterable[Swapped],
        loads: Iterable[SqlImport],
        servers: Iterable[SqlServer],
        warn: Callable[[str], None],
    ) -> list[Swapped]:
        """Return the items whose swap puts no empty folder in the place of a server's data.

        A part of files leaves out what is dumped: without the dump there is nothing to swap in,
        and a dump that is added to the present data needs these in place.
        """
        loaded = {each.server.container for each in loads if not each.beside}
        others = [server for server in servers if server.container not in loaded]
        data = [at for server in others for at in (server.data, *self._apart(server)) if at]
        data += [
            f"{self.target.folder}/{recipe.folder}/{path}"
            for kind, recipe in RECIPES.items()
            if kind not in facts.kinds
            for path in recipe.paths
        ]
        kept = []
        for item in items:
            hollow = [place for place in data if is_in(place, item.live)]
            if any(self._holds(each) and not self._holds(_staged(item, each)) for each in hollow):
                path = posixpath.relpath(item.live, self.target.folder)
                warn(
                    f"{item.live if path.startswith('..') else path} is not changed: a database, "
                    "or a service with one, keeps its data there, and the backup does not have "
                    "all of it."
                )
            else:
                kept.append(item)
        return kept

    def _apart(self, server: SqlServer) -> Iterable[str]:
        """Return where more of a server's data are; for a stopped one, by links."""
        there = named(self.found, server.container)
        if server.apart or not server.data or there is None or server.engine != "postgres":
            return server.apart
        words = ("find", server.data, "-maxdepth", "4", "-type", "l")
        links = ("-path", "*/pg_tblspc/*", "-printf", "%l\\n")
        told = stat_on(self.target.host, (*words, *links), self.target.as_root, READ_LIMIT_S)
        return [path_on_host(there.mounts, each) for each in told.splitlines()]

    def _holds(self, folder: str) -> bool:
        return bool(entries(self.target.host, folder, self.target.as_root))


def _beside(data: str, items: Iterable[OutsideItem]) -> str:
    """Return the folder for new data of a server: around all that is swapped with them.

    Data inside an item would be moved aside with it.
    """
    around = [e.live for e in items if is_in(data, e.live) and not e.is_mount]
    return posixpath.dirname(min([data, *around], key=len))


def without_new_data(
    items: Iterable[OutsideItem], loads: Iterable[SqlImport], warn: Callable[[str], None]
) -> list[OutsideItem]:
    """Return the items, except mount points that hold new data of a server.

    These would be moved aside with everything else in them.
    """
    kept = []
    for item in items:
        mine = [e.server.container for e in loads if is_in(e.server.data, item.live)]
        if item.is_mount and mine:
            names = ", ".join(mine)
            warn(
                f"{item.title} is not changed: it contains the data of {names}, which come from "
                "a dump. Its other files are in the outside part: unpack them by hand."
            )
        else:
            kept.append(item)
    return kept


def refuse_place(target: StackHost, container: str, data: str) -> None:
    """Raise Refused if only the manifest names a folder, and it is not one for data.

    Its contents would be moved aside: only the container's own mounts prove such a folder. That of
    a container that is created from the compose file is checked before its data are swapped.
    """
    place = posixpath.relpath(data, target.folder)
    top = place.partition("/")[0]
    if top == ".." and (
        volume_in(data) or not (is_system(data) or entries(target.host, data, target.as_root))
    ):
        return
    if top in ("..", ".", BACKUPS, RESTORE) or place in FOLDERS:
        raise Refused(
            f"According to the manifest the data of container {container} are in {data}. That is "
            f"not a separate folder in the stack, and {target.name} has no container of that "
            "name that confirms it. Nothing was changed. Create the container first, with its "
            f"docker-compose.yml (docker compose up --no-start {container}), or restore the "
            "other services one by one: --only NAME."
        )


def _staged(item: Item | OutsideItem, path: str) -> str:
    """Return the staged path of a path within a live item."""
    return posixpath.normpath(posixpath.join(item.staged, posixpath.relpath(path, item.live)))


def stages_of(stage: str, facts: RestoreFacts) -> dict[str, str]:
    """Return where services/ and volumes/ are staged, and each part of a recipe."""
    stack = f"{stage}/stack"
    folders = {top: f"{stack}/{top}" for top in FOLDERS}
    apart = stage
    if facts.volumes_apart:
        above, runtag = posixpath.split(stage)
        apart = f"{posixpath.dirname(above)}/volumes/.restore-{runtag}"
        folders["volumes"] = f"{apart}/stack/volumes"
    return folders | {kind: f"{apart}/{kind}" for kind in facts.kinds if kind in RECIPES}
