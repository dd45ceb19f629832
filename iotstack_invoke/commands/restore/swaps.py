"""The plan of a restore with the contents of its archives: what is swapped, what stays.

Pure, like planner.py.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from ...archives.scan import Contents
from ...backups.bundles import RECIPES
from ...core.dataclass import dataclass
from ...core.errors import Refused
from ...core.stack_folders import FOLDERS
from ...stack.around import folders_around
from ...stack.compose import COMPOSE_FILES
from ...stack.inside import is_in
from ...stack.left_out import patterns_below, plain_place
from ...workflows.restore import Around, Item, OutsideItem, RestoreFacts, aside_folder, used_folder
from .facts import EMPTY_FOLDERS, Holding
from .outside import within_mount
from .planner import Planner, data_loaded, project_words
from .sql_imports import stages_of


@dataclass(frozen=True, slots=True)
class Swaps:
    """Adds the swaps to the plans of one planner."""

    planner: Planner

    def holding_told(self, facts: RestoreFacts, contents: Contents) -> Holding:
        """Return the contents of a general part, as far as known before it is staged."""
        left_out = self.planner.manifest.left_out if self.planner.manifest else ()
        empty = {each.what for each in left_out}
        return Holding(
            is_staged=False,
            tops=dict.fromkeys(contents.top_files, "f"),
            folders=stages_of(self.planner.stage, facts),
            items=frozenset(contents.items),
            filled=frozenset(e for e in EMPTY_FOLDERS if empty and f"{e}/*" not in empty),
            included=frozenset(contents.included),
        )

    def items(self, facts: RestoreFacts, held: Holding) -> list[Item]:
        """Return each entry of services/ and volumes/ that the general part holds."""
        return [
            self.planner.item(facts, name, name, f"{held.folders[name.partition('/')[0]]}/{below}")
            for name in sorted(held.items)
            if name not in EMPTY_FOLDERS or name in held.filled
            for below in (name.partition("/")[2],)
        ]

    def included_items(self, facts: RestoreFacts, held: Holding) -> Iterator[Item]:
        """Yield what is swapped of the other paths in the general part."""
        for path in facts.included:
            is_asked = not self.planner.request.only or self.planner.names_included(path)
            if path in held.included and is_asked:
                yield self.planner.as_included(facts, path, f"{self.planner.stage}/stack/{path}")

    def with_items(
        self,
        facts: RestoreFacts,
        held: Holding,
        items: Collection[Item],
        chosen: Iterable[Item],
    ) -> RestoreFacts:
        """Return a plan with what is swapped: `chosen`, and top files.

        `items`: all that the backup holds of services/, volumes/. Raises Refused if nothing
        requested would be swapped.
        """
        here, stack, runtag = (
            self.planner.here,
            f"{self.planner.stage}/stack",
            self.planner.backup.runtag,
        )
        chosen = list(chosen)
        tops = held.wanted_tops
        for name in tops if not self.planner.request.only else ():
            if name not in held.same:
                is_beside = name in here.tops and not self.planner.takes_compose
                live = f"{name}.{runtag}" if is_beside else name
                item = self.planner.item(facts, name, live, f"{stack}/{name}")
                is_top_file = not (name in here.tops and not is_beside)
                chosen.append(replace(item, is_top_file=is_top_file))
        compose = facts.compose
        if "--file" not in compose:
            there = (held.tops, here.tops)
            file = next((n for each in there for n in COMPOSE_FILES if n in each), "")
            words = project_words(
                here.folder, file, {**here.tops, **held.tops}, held.compose_files
            )
            compose = (*compose[: compose.index("--project-directory")], *words)
        if self.planner.request.only and not (
            chosen or facts.loads or facts.server or facts.outside
        ):
            raise Refused(
                f"{runtag} has nothing of {', '.join(self.planner.request.names)} that can be "
                "restored. The stack was not changed. To see what is missing: inv show "
                f"'{runtag}'"
            )
        owner = ""
        if held.is_staged and here.is_new and facts.bare:
            names = [each for each in (*COMPOSE_FILES, *tops, *FOLDERS) if each in held.tops]
            owner = f"{stack}/{names[0]}" if names else ""
        facts = replace(facts, items=tuple(chosen), compose=compose, owner_file=owner)
        names = [posixpath.relpath(each.live, here.folder) for each in items]
        return replace(facts, folders=tuple(self.planner.folders_more(facts, names)))

    def with_recipes(self, facts: RestoreFacts, held: Holding) -> RestoreFacts:
        """Return a plan with what is swapped of services that have a part of their own.

        It comes after the items, which may put its parent folder in place.
        """
        items, quiet = [], []
        for kind in (each for each in facts.kinds if each in RECIPES):
            if self.planner.request.only and kind not in self.planner.request.names:
                continue  # only its database was requested
            recipe = RECIPES[kind]
            quiet.append((kind, self._container_of(kind)))
            for path in recipe.paths:
                if held.is_staged and (kind, path) not in held.recipes:
                    continue  # what the part does not hold stays
                live = f"{recipe.folder}/{path}"
                item = self.planner.item(facts, live, live, f"{held.folders[kind]}/{path}")
                # Not within the old folder, which is moved aside as a whole if it is an item as
                # well.
                aside, used = (
                    f"{each(facts, live)}/parts/{kind}/{path}"
                    for each in (aside_folder, used_folder)
                )
                items.append(replace(item, aside=aside, used=used))
        return replace(facts, items=(*facts.items, *items), quiet=tuple(quiet))

    def _container_of(self, kind: str) -> str:
        """Return the container of a service with a recipe: the one here, or that of its name."""
        found, table = self.planner.here.containers, self.planner.settings.table
        services = ((each.container.name, table.service_of(each.container)) for each in found)
        return next((name for name, service in services if service and service.name == kind), kind)

    def mount_points(self, facts: RestoreFacts) -> list[Item]:
        """Return the items that are mount points whose entries may be swapped.

        Not if something else is mounted or put in place below one: that is refused.
        """
        dumped = data_loaded(facts)
        dumped += [f"{self.planner.here.folder}/{recipe.folder}" for recipe in RECIPES.values()]
        points = self.planner.here.mounts
        return [
            each
            for each in facts.items
            if each.live in points
            if not any(is_in(e, each.live) for e in (*dumped, *(points - {each.live})))
        ]

    def swapped_within(self, facts: RestoreFacts, folders: Collection[Item]) -> RestoreFacts:
        """Return a plan in which the entries of such `folders` are swapped."""
        items = (within_mount(e, facts.previous) if e in folders else e for e in facts.items)
        return replace(facts, items=tuple(items))

    # What stays in it, and what is created around it

    def stays_wanted(self, facts: RestoreFacts) -> dict[str, str]:
        """Return what the backup left out of the items, each with its path there.

        Not data of a database, which a dump replaces.
        """
        folder = self.planner.here.folder
        wanted = {
            pattern: f"{folder}/{plain_place(pattern)}"
            for pattern in (self.planner.manifest.stays if self.planner.manifest else ())
            if any(
                patterns_below((pattern,), posixpath.relpath(each.live, folder))
                for each in facts.items
            )
        }
        return {pattern: e for pattern, e in wanted.items() if _is_apart(facts, e)}

    def stays_outside(self, facts: RestoreFacts) -> Iterator[str]:
        """Yield the same for paths outside of the stack."""
        for each in facts.outside:
            for _, below in each.stays:
                place = f"{each.live}/{plain_place(below)}"
                if _is_apart(facts, place):
                    yield place

    def with_what_lies(self, facts: RestoreFacts, there: Collection[str]) -> RestoreFacts:
        """Return a plan with those of them that exist, and with the missing parent folders."""
        wanted = self.stays_wanted(facts).items()
        places = {*self.stays_outside(facts)} & {*there}
        outside = tuple(
            replace(
                each,
                stays=tuple(
                    (pattern, below)
                    for pattern, below in each.stays
                    if f"{each.live}/{plain_place(below)}" in places
                ),
            )
            for each in facts.outside
        )
        stays = tuple(pattern for pattern, place in wanted if place in there)
        around = tuple(each for each in self.around(facts) if each.path not in there)
        return replace(facts, stays=stays, outside=outside, around=around)

    def around(self, facts: RestoreFacts) -> tuple[Around, ...]:
        """Return the parent folders of all that is put in place, existing or not."""
        folder, server, staged = (
            self.planner.here.folder,
            facts.server,
            f"{self.planner.stage}/stack",
        )
        placed_there: tuple[Item | OutsideItem, ...] = (*facts.items, *facts.outside)
        within = [each.live for each in placed_there]
        lives = [*within, *(each.server.data for each in facts.loads)]
        lives += server.folders if server and not server.within else ()
        lives += [link for each in facts.outside for link in each.links]

        def like(path: str) -> str:
            name = posixpath.relpath(path, folder)
            is_packed = name.partition("/")[0] in FOLDERS  # not the parents of an included path
            return f"{staged}/{name}" if is_packed else ""

        wanted = folders_around(filter(None, lives), within)
        return tuple(Around(each, live, like(each)) for each, live in wanted.items())


def _is_apart(facts: RestoreFacts, place: str) -> bool:
    return not any(is_in(e, place) or is_in(place, e) for e in data_loaded(facts))
