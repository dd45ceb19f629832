"""What of a backup is requested: all, or with --only the named services."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable
from typing import NoReturn

from ...backups.bundles import RECIPES
from ...backups.manifest import Manifest, Part, older_part
from ...backups.sets import BackupSet, State
from ...backups.verifications import in_places
from ...core.dataclass import dataclass
from ...core.errors import Refused
from ...core.nearest import nearest
from ...core.stack_folders import FOLDERS
from ...services.known import COPIED
from ...stack.compose import InspectedContainer
from ...stack.inside import is_in
from ...workflows.restore import Item, SqlImport
from ..backup.undumped import INFLUX
from .outside import names_outside
from .request import RestoreRequest


def containers_in(part: Part) -> set[str]:
    """Return the containers whose databases a part holds, by the manifest."""
    servers = part.facts.get("servers", ())
    return {str(each["container"]) for each in servers if isinstance(each, dict)}


def left_out_text(container: str, what: str) -> str:
    """Return that something is in no dump, for a restore's messages."""
    return f"Not restored, because it is missing in the dump of container {container}: {what}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The request for one backup; without --only everything is selected."""

    request: RestoreRequest
    backup: BackupSet
    manifest: Manifest | None
    influx: str
    """The container of InfluxDB 1.x."""

    def refuse_exact(self) -> None:
        """Raise Refused if it is unknown what the backup should hold, or it lacks some of it."""
        if not self.request.exact or (self.manifest and not self.lacking):
            return
        why = " ".join(self.lacking) or "it has no manifest, so what was left out is unknown"
        raise Refused(
            f"--exact would move aside data that {self.backup.runtag} may be missing by "
            f"accident: {why.rstrip('.')}. Nothing was changed. Restore without --exact."
        )

    def refuse_lost(self, source: str) -> None:
        """Raise Refused if an archive in the manifest is missing, or is cut."""
        made = self.manifest.made if self.manifest else ()
        names = {*self.request.names, *(("influxdb",) if self.request.databases else ())}
        found = self.backup.files
        wanted = [e for e in made if not names or names & {e.kind, *containers_in(e)}]
        lost = [part.file for part in wanted if part.kind not in found]
        other = [
            f"{part.file} has {found[part.kind].size_bytes:,} bytes, but its manifest has "
            f"{part.size_bytes:,}"
            for part in wanted
            if part.kind in found and found[part.kind].size_bytes != part.size_bytes
        ]
        runtag = self.backup.runtag
        why = f"is missing {', '.join(lost)}, which its manifest lists" if lost else ""
        why = why or (f"is damaged: {'; '.join(other)}" if other else "")
        if why:
            raise Refused(
                f"{runtag} {in_places(source)} {why}. Nothing was changed. Restore another copy "
                "(--from), or only other services (--only NAME). To list the copies: inv show "
                f"'{runtag}'"
            )

    @property
    def lacking(self) -> tuple[str, ...]:
        """What could not be made in the backup, and so is not restored."""
        runtag = self.backup.runtag
        if self.backup.state is State.UNFINISHED:
            told_so = (
                f"{runtag} is unfinished: its backup was interrupted, so what is missing is "
                f"unknown. Finish it on the machine that made it: inv backup --runtag '{runtag}'"
            )
            return (told_so,)
        told = self.manifest.lacking if self.manifest and not self.request.only else ()
        older = {older_part(kind) for kind in self.backup.parts}
        ends = ("and the data of that part is not changed.", "so an earlier one is used.")
        return tuple(
            f"{runtag} is incomplete: it has no {what} ({why.rstrip('.')}), {ends[what in older]}"
            for what, why in told
        )

    def left_out(self, kinds: Collection[str], loads: Iterable[SqlImport]) -> tuple[str, ...]:
        """Return what the dumps of some parts left out; of loaded ones only, once known."""
        made = self.manifest.made if self.manifest else ()
        loaded = {each.server.container for each in loads}
        return tuple(
            left_out_text(container, what)
            for part in made
            if part.kind in kinds
            for container, what in part.left_out
            if not loaded or container in loaded
        )

    def refuse_never_made(self) -> None:
        """Raise Refused if what was requested could not be saved in the backup."""
        told = self._never_made()
        lost = dict.fromkeys(told[name] for name in self.request.names if name in told)
        if lost:
            raise Refused(
                f"In {self.backup.runtag} {' '.join(lost)} The stack was not changed. Use "
                "another backup. To list them: inv list"
            )

    def _never_made(self) -> dict[str, str]:
        """Return why some names, which the backup should hold, have no data in it."""
        told: dict[str, str] = {}
        for part in self.manifest.parts if self.manifest else ():
            if part.error:
                recipe = RECIPES.get(part.kind)
                names = (part.kind, *((recipe.database,) if recipe else ()))
                why = f"no {part.kind} part was made: {part.error.rstrip('.')}."
                told |= dict.fromkeys(names, why)
            for name, why in part.lacking.items():
                told[name] = f"no dump of {name} was made: {why.rstrip('.')}."
        return told

    def kinds(self, engines: Iterable[str], *, outside: bool = False) -> tuple[str, ...]:
        """Return the parts to restore; raises Refused if one is not in the backup.

        `engines`: the parts of SQL that hold something requested. `outside`: whether the outside
        part does.
        """
        kinds = tuple(kind for kind in self.backup.parts if kind != "influxdb2")
        if not self.request.only:
            return kinds
        names = set(self.request.names)
        recipes = {each for each in kinds if each in RECIPES and each in names}
        owned = {each for each in kinds if each in RECIPES and RECIPES[each].database in names}
        wanted = {"general"} if names - recipes else set()
        wanted |= recipes | owned | set(engines) | ({"outside"} if outside else set())
        of_influx = bool({self.influx, "influxdb"} & names)
        if self.request.databases or (
            of_influx and ("influx" in kinds or not self._influx_as_files)
        ):
            wanted.add("influx")
        for kind in sorted(wanted - set(kinds)):
            raise Refused(
                f"{self.backup.runtag} has no {kind} part, and --only "
                f"{' --only '.join(self.request.only)} needs it. Nothing was changed. Use "
                "another backup. To list them: inv list"
            )
        return tuple(kind for kind in kinds if kind in wanted)

    @property
    def _influx_as_files(self) -> bool:
        """Whether InfluxDB could not be dumped, and its files are in the general part."""
        told = self.manifest.left_out if self.manifest else ()
        return any(each.what == INFLUX and COPIED in each.reason for each in told)

    def to_stop(
        self,
        mine: Iterable[InspectedContainer],
        folder: str,
        influx: str,
        swapped: Iterable[str] = (),
        *,
        idle: bool = False,
    ) -> tuple[str, ...]:
        """Return the containers of a stack to stop, in the order in which they were started.

        All that run; with --only, those of these names, those that see what is swapped (of
        services/, volumes/ and the paths `swapped`), and `influx` if that is loaded (else '').
        `idle`: those that do not run instead.
        """
        # A paused one would write into what was moved aside as soon as it resumes.
        stand = (e for e in mine if (e.container.running or e.paused) is not idle)
        running = sorted(stand, key=lambda each: each.started)
        if self.request.only:
            places = [f"{folder}/{top}/{name}" for name in self.request.names for top in FOLDERS]
            places += swapped
            names = {*self.request.names, influx}
            running = [
                each
                for each in running
                if each.container.name in names
                or any(is_in(mount.on_host, place) for mount in each.mounts for place in places)
            ]
        return tuple(each.container.name for each in running)

    def named(self, items: list[Item]) -> list[Item]:
        """Return the requested items."""
        if not self.request.only:
            return items
        return [each for name in self.request.names for each in items if _name(each) == name]

    def refuse_unknown(self, here: Callable[[], Collection[str]]) -> None:
        """Raise Refused for a name without any match in the manifest, before further checks.

        Not for the name of a container that is `here`: another may hold what it mounts.
        """
        made = {part.kind: part.facts for part in self.manifest.made} if self.manifest else {}
        databases = made.get("influx", {}).get("databases")
        if databases is not None:
            lost = [name for name in self.request.databases if name not in databases]
            if lost:
                self._refuse(lost, map(str, databases), "no database {} of InfluxDB")
        if not self.request.names or self.manifest is None or not self.manifest.sizes:
            return
        tops = {path: files for path, (_, files) in self.manifest.sizes.items()}
        names = {posixpath.basename(path): tops[path] for path in tops if path.count("/") == 1}
        held = {posixpath.basename(each) for each in self.manifest.included("general")}
        held |= {name for name, files in names.items() if files}
        held |= names_outside(self.manifest) | self._dumped
        known = {*names, *held, *self._never_made(), self.influx, "influxdb"}
        known |= {"influxdb2"} & {*self.backup.parts}
        absent = [name for name in self.request.names if name not in known]
        if absent and (absent := [name for name in absent if name not in here()]):
            self._refuse(absent, held)

    def refuse_absent(
        self, items: Iterable[Item], loads: Iterable[SqlImport], outside: Iterable[str] = ()
    ) -> None:
        """Raise Refused, with the existing names and the nearest, if one is not in the backup.

        `outside`: the names in the outside part.
        """
        held = {*map(_name, items), *outside, *self._dumped}
        held |= {each.server.container for each in loads}
        known = {*held, self.influx, "influxdb", *(each.part for each in loads)}
        if absent := [name for name in self.request.names if name not in known]:
            self._refuse(absent, held)

    @property
    def _dumped(self) -> set[str]:
        """The names of what is in a separate part."""
        made = self.manifest.made if self.manifest else ()
        influxdb = {"influxdb"} if "influx" in self.backup.parts else set()
        return influxdb.union({*self.backup.parts} & {*RECIPES}, *map(containers_in, made))

    def _refuse(
        self, absent: Collection[str], held: Iterable[str], what: str = "nothing of {}"
    ) -> NoReturn:
        listed = sorted(held)
        near = dict.fromkeys(each for name in absent for each in nearest(name, listed))
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise Refused(
            f"{self.backup.runtag} holds {what.format(', '.join(absent))}.{hint} It holds: "
            f"{', '.join(listed) or 'nothing'}. The stack was not changed."
        )


def _name(item: Item) -> str:
    return posixpath.basename(item.live)
