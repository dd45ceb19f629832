"""What prevents a restore on the disks of a target: mounts, flags, space.

Changes nothing.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Iterator

from ...backups.bundles import RECIPES
from ...backups.manifest import Manifest
from ...backups.names import KINDS
from ...backups.sets import BackupSet
from ...core.dataclass import dataclass
from ...core.errors import Refused
from ...core.stack_folders import RESTORE
from ...databases.sql.servers import ENGINES
from ...environment.stack_host import StackHost
from ...hosts.inspect import device, entries, may_be_there, refuse_read_only, stat_on
from ...hosts.pasted import host_flag
from ...reporting.report import size_text
from ...stack.mounted import refuse_mounts_since
from ...workflows.restore import Item, RestoreFacts, SqlImport
from ..undo.old_states import states_told
from .facts import LOOK_LIMIT_S
from .planner import Planner, data_loaded
from .target_checks import (
    mount_higher,
    refuse_away,
    refuse_held,
    refuse_mounts,
    refuse_stage_apart,
)


def sql_bytes(backup: BackupSet, manifest: Manifest | None, kinds: Iterable[str]) -> int:
    """Return the unpacked size of a backup's SQL dumps; a guess without a manifest."""
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
    """Return how many bytes the parts of a backup need in staging, by purpose."""
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


@dataclass(frozen=True, slots=True)
class DiskChecks:
    """The checks of a target's disks, for plans of a restore to it."""

    target: StackHost
    planner: Planner
    loads: tuple[SqlImport, ...] = ()
    """The dumps to load, as in the manifest."""

    def refuse(self, facts: RestoreFacts) -> None:
        """Raise Refused if the restore does not fit, with numbers, or needs more than a rename."""
        self.refuse_mounts(facts)
        refuse_stage_apart(self.target)
        needed = self.needs(facts)
        self._refuse_folder(self.target.folder, facts.free_bytes, needed)
        if facts.volumes_apart:
            volumes = f"{self.target.folder}/volumes"
            del needed["the archives"]
            self._refuse_folder(volumes, self.target.host.free_bytes(volumes) or 0, needed)
        self.refuse_copies(facts)

    def refuse_mounts(self, facts: RestoreFacts) -> None:
        """Raise Refused if something cannot be renamed, or written."""
        folder, others = self.target.folder, "Restore the other services one by one: --only NAME"

        def unpack(path: str) -> str:
            archive = shlex.quote(f"{self.planner.backup.runtag}.{KINDS['general']}")
            below = f"./{posixpath.relpath(path, folder)}"
            return (
                f"{others}. For this one, stop its containers, and unpack it over the existing "
                f"files: sudo tar -xpzf {archive} -C {shlex.quote(folder)} --same-owner "
                f"--numeric-owner --xattrs --acls {shlex.quote(below)}"
            )

        def plain(path: str) -> str:
            return f"Make {path} a plain folder of the stack, with nothing mounted in it."

        def higher(path: str) -> str:
            return f"{mount_higher(path)} Or: {others[0].lower()}{others[1:]}."

        def load(_path: str) -> str:
            return f"{others}, and load this dump by hand (see RESTORE.txt of the backup)."

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
        """Yield the folders in which something is put in place or moved aside, as far as known."""
        for item in (*(facts.items or self.planner.items_told(facts)), *facts.outside):
            entries_alone = bool(item.fresh) if isinstance(item, Item) else item.is_mount
            yield item.live if entries_alone else posixpath.dirname(item.live)
        loads = facts.loads or self.loads
        data = [each.server.data for each in loads]
        data += facts.server.folders if facts.server else ()
        data += [each.live for each in facts.folders] if facts.exact else ()
        yield from map(posixpath.dirname, filter(None, data))

    def refuse_mounts_since(self, facts: RestoreFacts) -> None:
        """Raise StepFailed if mounts have changed since the facts were gathered."""
        lives = [self.target.folder, *(each.live for each in facts.outside)]
        lives += data_loaded(facts)
        points = self.planner.here.mounts
        refuse_mounts_since(self.target.host, lives, points, "this restore")

    def needs(self, facts: RestoreFacts) -> dict[str, int]:
        """Return how many bytes the restore needs on the disk, by purpose."""
        fetched = not facts.in_place
        needed = sizes_unpacked(
            self.planner.backup, self.planner.manifest, facts.kinds, fetched=fetched
        )
        if facts.server and facts.databases:
            words = ("du", "-sbc", "--", *facts.server.folders)
            told = stat_on(self.target.host, words, facts.access.as_root, LOOK_LIMIT_S).split()
            needed["the copy of InfluxDB's data"] = int(told[-2]) if told else 0
        if facts.stays_bytes:
            needed["databases that stay"] = facts.stays_bytes
        return needed

    def refuse_copies(self, facts: RestoreFacts) -> None:
        """Raise Refused if copies to other file systems do not fit there."""
        for folder, size in self._copied_to(facts).items():
            free = self.target.host.free_bytes(folder)
            if free is not None and free < size:
                self._refuse_folder(folder, free, {"what is copied there": size})

    def _copied_to(self, facts: RestoreFacts) -> dict[str, int]:
        """Return how much is copied to other file systems first, by a folder of each."""
        host = self.target.host
        folders: dict[str, str] = {}
        needed: dict[str, int] = {}
        sizes = self.planner.manifest.sizes if self.planner.manifest else {}
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

    def _refuse_folder(self, folder: str, free_bytes: int, needed: dict[str, int]) -> None:
        total = sum(needed.values())
        if free_bytes < total:
            listed = ", ".join(f"{size_text(e)} for {what}" for what, e in needed.items() if e)
            is_stack = folder == self.target.folder
            above, name = (f"{folder}/{RESTORE}" if is_stack else folder), "previous-"
            name = name if is_stack else f".{name}"
            kept = entries(self.target.host, above, self.target.as_root)
            advice = (
                f", for example by removing data kept by earlier restores: {above}/{name}…."
                if any(each.startswith(name) for each in kept)
                else "."
            )
            raise Refused(
                f"On {self.target.name} {size_text(free_bytes)} are free in {folder}, but this "
                f"restore needs about {size_text(total)}: {listed}. Replaced data is also kept. "
                f"Nothing was changed. Free some space there{advice}{self._kept_told()}"
            )

    def _kept_told(self) -> str:
        """Return how many old states there are, and the command that lists them; '' for none."""
        target = self.target
        told = states_told(target.host, target.folder, target.as_root)
        far = host_flag(self.planner.request.host)
        return f" {told}. To list it: inv undo --list{far}" if told else ""
