"""The state of a target, and of a backup restored there: queried, planned, and refused.

Changes nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import replace

from ...archives.scan import Contents, list_archive, refuse_members
from ...backups.archive_records import records_in
from ...backups.manifest import Manifest
from ...backups.names import KINDS, TEXTS
from ...backups.sets import BackupSet
from ...core.errors import Refused
from ...core.stack_folders import FOLDERS, RESTORE
from ...databases.influxdb.server import Server
from ...engine.steps import Record
from ...environment.stack_host import StackHost
from ...hosts.base import ANY_EXIT, Command
from ...hosts.inspect import which_may_be_there
from ...reporting.report import Report
from ...settings.model import Settings
from ...stack.compose import inspect_all
from ...vaults.access import encrypted_storage
from ...workflows.restore import Item, OutsideItem, RestoreFacts, SqlImport
from ..undo.change_logs import log_folder
from ..undo.old_states import is_called_like_state
from .by_hand import Influx2ByHand
from .disk_checks import DiskChecks
from .facts import Candidates, Holding, chosen_of, folders_among, gather, gather_staged
from .outside import OutsidePart, place_there, placed
from .planner import Planner, inclusions, told_of_influx
from .request import RestoreRequest, Source
from .selection import Selection
from .sql_imports import SqlImports, without_new_data
from .stays import Stays
from .swaps import Swaps
from .target_checks import influx_apart, server_to_load, time_stamp


class Preflight:
    """The queries of one restore to its target, and the plans from their answers.

    A plan uses the latest facts of the target (facts.py describes when they are gathered).
    """

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
        """What of the backup is not put in place, since it would replace data of a database."""
        self.same: list[str] = []
        """The top files that are equal here and in the backup; known when it is staged."""
        self._loads: tuple[SqlImport, ...] = ()
        """The dumps to load, as in the manifest."""
        self._refuse_early()
        self.influx2 = Influx2ByHand(backup, manifest, target.folder)

    def _refuse_early(self) -> None:
        """Raise Refused if the name and the manifest alone show that it is impossible."""
        if is_called_like_state(self.runtag):
            raise Refused(
                f"{self.runtag} has the same name as data kept by an earlier restore in "
                f"{RESTORE}/. Nothing was changed. Restore it by hand: see "
                f"{self.runtag}.{TEXTS['restore']}."
            )
        told = str(told_of_influx(self.manifest, "container"))
        only = Selection(self.request, self.backup, self.manifest, told)
        only.refuse_exact()
        only.refuse_lost(self.source.name)
        only.refuse_never_made()
        only.refuse_unknown(self._names_here)

    @property
    def disks(self) -> DiskChecks:
        """The disk checks of the target for the present plan."""
        return DiskChecks(self.target, self.planner, self._loads)

    def _names_here(self) -> frozenset[str]:
        """Return all containers, and the settings' name of InfluxDB's, which may be requested."""
        found = inspect_all(self.target.host, self.target.docker)
        return frozenset((self.settings.influx.container, *(e.container.name for e in found)))

    # Before the contents of the archives are known

    def facts(self) -> RestoreFacts:
        """Return the plan by the present state, without the items."""
        target, settings = self.target, self.settings
        rows = inclusions(settings, self.request, target.folder)
        here = gather(target, settings.table, rows)
        found, names = here.containers, self.request.names
        planner = Planner(
            here, self.request, settings, self.backup, self.manifest, self.source.in_place
        )
        self.outside = OutsidePart(
            *(target, settings, self.manifest, found, here.mounts, here.away),
            *(names, planner.no_stack),
            is_strict=here.compose[-1] == "docker-compose",
        )
        users = frozenset(each.container.name for each in self.outside.users(found))
        self.planner = planner = replace(planner, users=users).decided()
        self.only = planner.selection
        self.only.refuse_unknown(lambda: {each.container.name for each in found})
        planner.refuse_bare()
        kinds = self._kinds()
        asked = self._candidates(kinds)
        facts = planner.plan(kinds, asked, settings.influx.limit_s)
        told = self._loads_told(facts)
        self._loads = told
        return self._stays.add(facts, told, staged=False)

    def _candidates(self, kinds: tuple[str, ...]) -> Candidates:
        """Return what is queried of the target once the parts to restore are known."""
        target, here, planner = self.target, self.planner.here, self.planner
        compose_files: tuple[str, ...] = ()
        if not planner.takes_compose:
            compose_files = chosen_of(target, target.folder, here.tops)
        server = None
        if "influx" in kinds:
            server = self._server(planner.compose(compose_files))
        logs = log_folder(self.settings.stack.folder, target.host)
        self._stamp = time_stamp(target, self._stamp, logs)
        previous = f"{target.folder}/{RESTORE}/previous-{self.runtag}-{self._stamp}"
        is_outside, outside = "outside" in kinds, self.outside
        return Candidates(
            previous=previous,
            compose_files=compose_files,
            server=server,
            influx_apart=influx_apart(target, server) if server and not server.within else "",
            influx_pieces=tuple(self._pieces(server, previous)) if server else (),
            outside=tuple(outside.items(previous, self.stage)) if is_outside else (),
            fillings=outside.fillings(self.stage) if is_outside else (),
            volumes=tuple(outside.empty_volumes) if planner.no_stack else (),
            titles=outside.titles,
        )

    def _server(self, compose: tuple[str, ...]) -> Server:
        """Return the InfluxDB to load; raises Refused if it cannot be loaded."""
        target, name = self.target, self.planner.influx
        found = self.planner.here.containers
        told = str(told_of_influx(self.manifest, "data"))
        data = place_there(target, self.manifest, told) if told else ""
        scratch = f"{self.stage}/influxdb"
        server = server_to_load(target, found, name, data, self._apart_of_influx(), scratch)
        if self.planner.compose_here and not any(e.container.name == name for e in found):
            self._refuse_without_server(compose, name)
        if server.within and self.request.databases:
            raise Refused(
                f"On {target.name} the catalogue of InfluxDB is inside container {name}, so "
                "single databases cannot be restored. Nothing was changed. Map /var/lib/influxdb "
                f"to a folder, or restore all of InfluxDB: --only {name}."
            )
        return server

    def _apart_of_influx(self) -> dict[str, str]:
        """Return which of its folders have separate paths by the manifest, and these paths."""
        told = told_of_influx(self.manifest, "apart")
        return {
            name: place_there(self.target, self.manifest, str(told[name]))
            for name in ("meta", "data", "wal")
            if isinstance(told, dict) and told.get(name)
        }

    def _pieces(self, server: Server, previous: str) -> Iterator[OutsideItem]:
        """Yield what is swapped of an InfluxDB besides its folder, each separately."""
        for name, live in server.apart:
            fresh = f"{posixpath.dirname(live)}/.fresh-{posixpath.basename(live)}"
            yield placed(self.target, OutsideItem(name, fresh, live, "", ""), previous)

    def _kinds(self) -> tuple[str, ...]:
        """Return the parts to restore; raises Refused if one cannot be restored."""
        if self.influx2.container and {self.influx2.container, "influxdb2"} & {
            *self.request.names
        }:
            raise Refused(f"{self.influx2.advice} Nothing was changed.")
        engines = self._imports.engines(self.backup.parts, self.planner.here.servers)
        return self.only.kinds(engines, outside=self.outside.holds_any)

    @property
    def _imports(self) -> SqlImports:
        found, names = self.planner.here.containers, self.request.names
        return SqlImports(self.target, found, self.manifest, self.stage, names)

    @property
    def _stays(self) -> Stays:
        return Stays(self.target, self.planner.here.containers, self.manifest, self.stage)

    def _loads_told(self, facts: RestoreFacts) -> tuple[SqlImport, ...]:
        """Return the manifest's facts about the dumps to load; none for a refused one."""
        folder = self.target.folder
        places = (f"{folder}/{top}/{name}" for name in self.request.names for top in FOLDERS)
        items = [Item("", place, "", "") for place in places]
        try:
            return self._imports.choose(facts, items, staged=False)
        except Refused:
            return ()  # reported when they are staged

    def _refuse_without_server(self, compose: tuple[str, ...], name: str) -> None:
        told = self.target.host.run(Command((*compose, "config"), ANY_EXIT))
        named_there = rf"^\s*(container_name: ['\"]?{re.escape(name)}['\"]?|{re.escape(name)}:)$"
        if told.exit_code:
            self.report.warn(
                f"  Cannot check whether docker-compose.yml has a service {name} to load its "
                f"dump into, because compose cannot read it: {told.last_line}"
            )
        elif not re.search(named_there, told.out, re.MULTILINE):
            raise Refused(
                f"On {self.target.name} docker-compose.yml has no service {name} to load its "
                "dump into. Add it, or restore the other services one by one: --only NAME."
            )

    def records(self) -> dict[str, Record]:
        """Return the manifest's records of the archives, at their source."""
        return records_in(self.manifest, self.runtag)

    def contents(self, facts: RestoreFacts) -> Contents | None:
        """Return the contents of the general part, read at its location; None if impossible.

        Raises StepFailed, as unpacking it would, if it is damaged or must not be unpacked.
        """
        if "general" not in facts.kinds or not callable(getattr(self.source.storage, "run", None)):
            return None
        path = f"{self.source.folder}/{self.runtag}.{KINDS['general']}"
        side = encrypted_storage(self.source.storage)
        if side and side.is_encrypted(path):
            return None
        as_root = facts.access.as_root if facts.in_place else ()
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
        """Return the same from the manifest, without reading the archive if possible.

        `top_files`: None if they are not known without that.
        """
        sizes = self.manifest.sizes if self.manifest else {}
        items = {path for path in sizes if path.count("/") == 1 and path.split("/")[0] in FOLDERS}
        items = self.planner.as_here(items)
        if "general" in facts.kinds and not items:
            return self.contents(facts)
        return Contents(
            items=items,
            top_files={*(top_files or ())},
            tops_known=top_files is not None,
            included={*facts.included},
        )

    # With the contents of the archives

    def facts_again(self, facts: RestoreFacts) -> RestoreFacts:
        """Return the plan with the present state, right before the switch.

        Raises StepFailed if a drive was mounted or unmounted meanwhile.
        """
        self.disks.refuse_mounts_since(facts)
        rows = inclusions(self.settings, self.request, self.target.folder)
        here = gather(self.target, self.settings.table, rows)
        users = frozenset(e.container.name for e in self.outside.users(here.containers))
        self.planner = replace(self.planner, here=here, users=users)
        return self.planner.again(facts)

    def with_items(self, facts: RestoreFacts, contents: Contents | None = None) -> RestoreFacts:
        """Return the plan with what is swapped: each entry of services/ and volumes/.

        By the staged data, or by the contents of an archive that is not staged yet.
        """
        swaps = Swaps(self.planner)
        facts = self._with_swapped(facts, contents)
        facts = swaps.with_what_lies(facts, self._lying(facts))
        return self._stays.add(facts, facts.loads, staged=contents is None)

    def _lying(self, facts: RestoreFacts) -> frozenset[str]:
        """Return which data that stay in the items exist, and which of their parent folders."""
        swaps, host = Swaps(self.planner), self.target.host
        stays = {*swaps.stays_wanted(facts).values(), *swaps.stays_outside(facts)}
        around = [each.path for each in swaps.around(facts)]
        # The parents as root, which can read inside folders of mode 0700.
        there = which_may_be_there(host, around, self.target.as_root)
        return there | which_may_be_there(host, sorted(stays))

    def _holding(self, facts: RestoreFacts, contents: Contents | None) -> Holding:
        """Return the contents of the parts: the given ones, or else the staged ones."""
        if contents:
            return Swaps(self.planner).holding_told(facts, contents)
        reads_env = "--file" not in facts.compose
        here = self.planner.here
        return gather_staged(self.target, here, facts, self.stage, reads_env=reads_env)

    def _with_swapped(self, facts: RestoreFacts, contents: Contents | None) -> RestoreFacts:
        swaps, staged, is_general = Swaps(self.planner), contents is None, "general" in facts.kinds
        held = self._holding(facts, contents)
        if not is_general:
            facts, _ = self._with_loads(facts, [], staged=staged)
        else:
            items = swaps.items(facts, held)
            wanted = [*self.only.named(items), *swaps.included_items(facts, held)]
            facts, chosen = self._with_loads(facts, wanted, staged=staged)
            self.only.refuse_absent([*items, *wanted], facts.loads, self.outside.held)
            self.same = sorted(held.same)
            facts = swaps.with_items(facts, held, items, chosen)
            points = folders_among(self.target, swaps.mount_points(facts), staged=staged)
            facts = swaps.swapped_within(facts, points)
        facts = swaps.with_recipes(facts, held)
        self.disks.refuse_mounts(facts)
        if is_general:
            self.disks.refuse_copies(facts)
        return facts

    def _with_loads(
        self, facts: RestoreFacts, items: list[Item], *, staged: bool
    ) -> tuple[RestoreFacts, list[Item]]:
        """Return the plan with the SQL dumps to load, and the items beside them.

        Folders with data of a server without a dump are left out of the items.
        """
        here, loads = self.planner.here, self._imports
        chosen = loads.choose(facts, items, staged=staged)
        if "--file" in facts.compose:
            for each in chosen:
                if not each.there:
                    self._refuse_without_server(facts.compose, each.server.container)
        if staged:
            servers = (*here.servers, *self.planner.undumped_influx(facts))
            self.kept.clear()
            items = loads.keep_data(facts, items, chosen, servers, self._keep)
            outside = loads.keep_data(facts, facts.outside, chosen, servers, self._keep)
            outside = without_new_data(outside, chosen, self._keep)
            facts = replace(facts, outside=tuple(outside))
        items = self.influx2.without_data(items, here.containers)
        return replace(facts, loads=chosen), items

    def _keep(self, told: str) -> None:
        self.kept.append(told)
        self.report.warn(f"  {told}")
