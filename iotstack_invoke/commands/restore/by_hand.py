"""The InfluxDB 2 of a backup: a restore leaves it alone, and prints how to do it by hand."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable
from typing import Any

from ...backups.manifest import Manifest
from ...backups.names import PARTS
from ...backups.sets import BackupSet
from ...core.dataclass import dataclass
from ...databases.influxdb2.dump import TEMPLATE_STORE, data_folders, places_by_hand, steps_by_hand
from ...stack.compose import InspectedContainer
from ...stack.inside import is_in
from ...workflows.restore import Item


@dataclass(frozen=True, slots=True)
class Influx2ByHand:
    """What a backup holds of InfluxDB 2, and where a target has its data."""

    backup: BackupSet
    manifest: Manifest | None
    folder: str
    """The stack's, on the target."""

    @property
    def container(self) -> str:
        """The container whose InfluxDB 2 the backup holds, '' if it holds none."""
        if "influxdb2" not in self.backup.files:
            return ""
        return str(self._told("container") or "influxdb2")

    def _told(self, name: str) -> Any:
        """Return a fact of its part from the manifest, None if missing."""
        parts = {part.kind: part for part in self.manifest.made} if self.manifest else {}
        return parts["influxdb2"].facts.get(name) if "influxdb2" in parts else None

    @property
    def advice(self) -> str:
        """How to restore it by hand; '' if the backup holds none."""
        if not self.container:
            return ""
        part = shlex.quote(f"{self.backup.runtag}.{PARTS['influxdb2']}")
        steps = "\n".join(f"  {each}" for each in self._steps(part))
        return (
            "InfluxDB 2 must be restored by hand and was not changed: its restore is not tested "
            f"here. By its documentation, in {self.folder}, with the part in it:\n{steps}\nFrom "
            "version 2.9.0 on `influx restore` also needs --operator-token: the one in its "
            "influx-configs, which is in the part."
        )

    def _steps(self, part: str) -> tuple[str, ...]:
        facts = {name: self._told(name) for name in ("store", "data")}
        return steps_by_hand(self.container, part, *places_by_hand(facts, self.manifest))

    def without_data(
        self, items: Iterable[Item], found: Iterable[InspectedContainer]
    ) -> list[Item]:
        """Return the items except those with its data, here or in the backup.

        A general part leaves these data out, so a swap would put an empty folder in their place.
        """
        there = (each for each in found if each.working_folder == self.folder)
        data = {*data_folders(there)} if self.container or self._failed else set()
        if self.container:
            told = self._told("data")
            if told is None:
                told = f"{TEMPLATE_STORE}/data"
            if told:
                data.add(posixpath.normpath(posixpath.join(self.folder, told)))
        return [e for e in items if not any(is_in(each, e.live) for each in data)]

    @property
    def _failed(self) -> bool:
        """Whether the backup should have its part, and has none."""
        parts = self.manifest.parts if self.manifest else ()
        return any(part.kind == "influxdb2" and part.error for part in parts)
