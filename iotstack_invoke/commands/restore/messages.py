"""The messages of a restore: before it, what would change; after it, what did."""

from __future__ import annotations

import contextlib
import posixpath
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from ...archives.scan import Contents
from ...backups.names import KINDS
from ...backups.sets import State, unnamed_told
from ...core.errors import ExitCode, StepFailed, Unreachable
from ...core.runtag import LATEST
from ...environment.hooks import HooksResult
from ...environment.stack_host import find_machine
from ...hosts.base import ANY_EXIT, Command
from ...hosts.inspect import may_be_there, read_text, which_may_be_there
from ...hosts.pasted import host_flag
from ...reporting.report import duration_text, shown, size_text
from ...settings.rows import missing_rows
from ...stack.compose import InspectedContainer, inspect_all, is_top_file, of_stack
from ...stack.compose_needs import ComposeNeeds
from ...stack.inside import is_in
from ...stack.left_out import plain_place
from ...workflows.restore import RestoreFacts
from ..shared.backup_warnings import damaged_told, told_of_data
from ..shared.latest import PassedOver, passed_told
from .facts import present as present_now
from .fates import Fates
from .needed import needed, top_texts
from .outside import of_old_folder, place_there, unseen
from .preflight import Preflight
from .request import lacking_of, newer_elsewhere
from .stays import put_in_place, told_after, told_before, unknown_told

REPLACES, REPLACES_AS_WELL = "replaces", "replaces as well"


class RestoreMessages:
    """The messages of one restore; `passed`: the newer backups that were passed over."""

    def __init__(self, before: Preflight, passed: tuple[PassedOver, ...]) -> None:
        self.settings, self.target, self.source = before.settings, before.target, before.source
        self.request, self.report = before.request, before.report
        self.backup, self.manifest, self.runtag = before.backup, before.manifest, before.runtag
        self.before = before
        self.passed = passed
        self.by_hand = "" if self.request.only else before.influx2.advice
        """What of the request the user must do by hand, and how."""
        self.fates = Fates()

    # Before it.

    def tell_what(self, facts: RestoreFacts) -> None:
        """Print what is restored from where to where, and what is missing in it."""
        unfinished = self.backup.state is State.UNFINISHED
        made = "unfinished" if unfinished else "unverified: it has no manifest"
        made = f"made on {self.manifest.host}" if self.manifest else made
        sizes = ", ".join(
            f"{kind} {size_text(self.backup.files[kind].size_bytes)}" for kind in facts.kinds
        )
        self.report.write(
            f"Restore {self.runtag} ({made}; {sizes}) from {self.source.name} to "
            f"{self.target.folder} on {self.target.name}"
        )
        if self.request.runtag == LATEST:
            host = host_flag(self.request.host)
            for text in passed_told(self.passed, named="--runtag ", host=host):
                self.report.warn(f"  {text}")
            backup = replace(self.backup, manifest=self.manifest)
            asked = (self.settings, self.target, self.request, self.source)
            lacking = lacking_of(self.settings, self.source, self.manifest)
            for text in filter(None, (*newer_elsewhere(*asked, backup), lacking)):
                self.report.warn(f"  {text}")
        for kind in self.backup.unnamed:
            told = unnamed_told(self.runtag, kind).rstrip(".")
            self.report.warn(f"  {told}: it is not restored.")
        only = self.before.only
        for text in (*only.lacking, *only.left_out(facts.kinds, facts.loads)):
            self.report.warn(f"  {text}")
        if not self.request.databases:
            for text in told_of_data(self.manifest, self.request.names):
                self.report.warn(f"  {text}")
        if self.request.only:
            self.report.write(f"  only: {', '.join(self.request.only)}")
        for text in unknown_told(facts):
            self.report.warn(f"  {text}")
        if self.before.planner.takes_compose and self.before.planner.tops_here:
            self.report.write("  the backup's compose file and .env replace those here")
        if self.by_hand:
            self.report.warn(f"  {self.by_hand}")
        for text in self._outside_left(facts):
            self.report.warn(f"  {text}")

    def tell_needed(self, facts: RestoreFacts) -> Collection[str] | None:
        """Print what new containers need and no backup holds; return the backup's top files.

        None if they are unknown before everything is unpacked.
        """
        from_backup = self.before.planner.takes_compose
        archive = f"{self.source.folder}/{self.runtag}.{KINDS['general']}"
        has_any = "general" in facts.kinds and not self.request.only
        with self.report.waiting("reading the backup's compose file"):
            packed = top_texts(self.source.storage, archive) if has_any else {}
        if not (facts.bare or from_backup):
            self._tell_containers(facts, None)
            return packed
        if packed is None:
            self._tell_containers(facts, None)
            self.report.warn(
                f"  Cannot check what the containers need: the compose file in {archive} cannot "
                "be read before the whole archive."
            )
            return None
        told: tuple[str, ...]
        try:
            with self.report.waiting("checking what the containers need"):
                found = needed(self.target, self.manifest, packed, from_backup=from_backup)
            told, warnings, needs = found.told, found.warnings, found.needs
        except Unreachable:
            raise
        except StepFailed as error:
            told, warnings = (), (f"Cannot check what the containers need: {error}",)
            needs = None
        self._tell_containers(facts, needs)
        for text in told:
            self.report.write(f"  {text}")
        for text in warnings:
            self.report.warn(f"  {text}")
        return packed

    def _tell_containers(self, facts: RestoreFacts, needs: ComposeNeeds | None) -> None:
        """Print what happens to each container of the stack, by name.

        `needs`: what the compose files need for new containers, if known.
        """
        packed = None
        if self.before.planner.takes_compose and facts.bare:
            packed = needs or ComposeNeeds(are_all=False)
        asked = None
        if self.request.only:
            asked = (*self.request.names, *([facts.server.container] if facts.server else ()))
        found = self.before.planner.here.containers
        self.fates = Fates.of(self.target, self.manifest, facts, asked, packed, found)
        for text in self.fates.told_before():
            self.report.write(f"  {text}")

    def _outside_left(self, facts: RestoreFacts) -> tuple[str, ...]:
        """Return what of the outside part is not restored, or changed."""
        outside = self.before.outside
        left = (*outside.left, *outside.plain) if "outside" in facts.kinds else ()
        return (*left, *(outside.not_made if facts.bare else ()))

    def _containers_now(self) -> tuple[InspectedContainer, ...] | str:
        """Return all containers at the end, or why they are unknown."""
        try:
            return inspect_all(self.target.host, self.target.docker)
        except StepFailed as error:
            return str(error)

    def _unseen(
        self, facts: RestoreFacts, found: tuple[InspectedContainer, ...] | str
    ) -> tuple[str, ...]:
        """Return restored data whose present containers mount other sources instead."""
        folder = self.target.folder
        old = self.manifest.folder if self.manifest and not self.request.only else ""
        if not (facts.outside or old not in ("", folder)):
            return ()
        if isinstance(found, str):
            return (f"Cannot check whether containers mount the restored files: {found}",)
        return (
            *unseen(facts.outside, found),
            *of_old_folder(old, folder, of_stack(found, folder)),
        )

    def _tell_fates(
        self, facts: RestoreFacts, found: tuple[InspectedContainer, ...] | str
    ) -> None:
        """Print which containers were created, do not run as before, or are missing."""
        if isinstance(found, str):
            return  # reported elsewhere, for those that were to come up
        for text in self.fates.told_after(facts, self.target.folder, found):
            self.report.write(f"  {text}")

    def tell_space(self, facts: RestoreFacts) -> None:
        """Print the needed and the free disk space."""
        needed = self.before.disks.needs(facts)
        listed = ", ".join(
            f"{size_text(size)} for {what}" for what, size in needed.items() if size
        )
        self.report.write(
            f"  needs about {size_text(sum(needed.values()))} ({listed}); "
            f"{size_text(facts.free_bytes)} are free"
        )

    def tell_items(self, facts: RestoreFacts, contents: Contents | None) -> None:
        """Print what would change: what is replaced, what is new, what stays.

        Each thing once. Without `contents` only what is known before.
        """
        differences = dict(self._differences(facts, contents)) if contents else {}
        for what, names in differences.items():
            self.report.write(f"  {what}: {names}")
        if differences.get(REPLACES) != "nothing" or REPLACES_AS_WELL in differences:
            self.report.write(f"  replaced data is kept in: {facts.previous}")
        for text in told_before(facts):
            self.report.write(f"  {text}")

    def _differences(self, facts: RestoreFacts, contents: Contents) -> Iterator[tuple[str, str]]:
        host = self.target.host
        lives = {each.live for each in facts.items}
        beside = _beside(facts)
        inside = lives - beside
        present = self._with_parts({*self.before.planner.here.present}, lives)
        present |= which_may_be_there(
            host, [each.live for each in facts.items if not each.is_top_file]
        )
        loaded = [*put_in_place(facts, self.manifest)]
        there = [e for e in facts.outside if not e.volume and may_be_there(host, e.live)]
        new = [each.title for each in facts.outside if each not in there]
        new += [*(e.title for e in facts.fillings), *(e.title for e in facts.volumes)]
        replaced = self._listed([*sorted(inside & present), *(e.title for e in there)])
        made = self._listed([*sorted(inside - present), *new])
        yield (
            REPLACES,
            "; ".join((*replaced, *(name for old, name in loaded if old))) or "nothing",
        )
        if told := "; ".join((*made, *(name for old, name in loaded if not old))):
            yield "new here", told
        for told in self._listed(sorted(beside)):
            yield "put beside the existing one if it differs", told
        if not contents.tops_known:
            how = (
                REPLACES_AS_WELL
                if self.before.planner.takes_compose
                else "put beside the existing one"
            )
            yield how, "its compose files and .env, listed when the backup is unpacked"
        yield from self._left(facts, "stays as it is", present - lives)

    def _left(
        self, facts: RestoreFacts, what: str, paths: Collection[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield which paths stay, without those that are reported as not in the backup.

        Also without a folder around data that a dump replaces.
        """
        data = [each.server.data for each in facts.loads]
        data += facts.server.folders if facts.server else ()
        more = {each.live for each in facts.folders}
        stay = (e for e in paths if e not in more and not any(is_in(each, e) for each in data))
        for told in self._listed([*sorted(stay), *_kept(facts)]):
            yield what, told

    def _with_parts(self, present: set[str], lives: set[str]) -> set[str]:
        """Return the present paths, with swapped entries of a folder instead of the folder."""
        folder = self.target.folder
        deep = {each for each in lives if posixpath.relpath(each, folder).count("/") > 1}
        around = {each for each in present if any(one.startswith(f"{each}/") for one in deep)}
        return present - (around - lives) | which_may_be_there(self.target.host, deep)

    def _listed(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return paths and titles as one text, without the stack's folder; () for none."""
        told = ", ".join(shown(path.removeprefix(f"{self.target.folder}/")) for path in paths)
        return (told,) if told else ()

    # After it.

    def tell_good(
        self,
        facts: RestoreFacts,
        warnings: tuple[str, ...],
        proven: Iterable[str],
        after: HooksResult,
        down_s: float,
    ) -> int:
        """Report that it is restored, with what the user must know; return the exit code.

        `proven`: messages of the steps to show again. `down_s`: how long the stack was down.
        """
        host = host_flag(self.target.name) if self.target.name != "this machine" else ""
        away = f"; the stack was unavailable for {duration_text(down_s)}" if facts.running else ""
        self.report.write(f"{self.runtag} is restored{away}. To undo: inv undo{host}")
        self._tell_done(facts)
        found = self._containers_now()
        self._tell_fates(facts, found)
        for text in proven:
            self.report.write(f"  {text}")
        self._tell_beside(facts)
        self._tell_rows()
        by_hand = (self.by_hand,) if self.by_hand else ()
        only = self.before.only
        warnings += (*after.warnings, *only.left_out(facts.kinds, facts.loads), *by_hand)
        warnings += (*self._outside_left(facts), *self.before.kept, *self._unseen(facts, found))
        warnings += unknown_told(facts)
        if not self.request.databases and (
            text := damaged_told(self.manifest, self.request.names)
        ):
            warnings += (text,)
        if not self.request.only and self.manifest and (count := len(self.manifest.uncovered)):
            told = f"  NOT COVERED by the backup, so not restored: {count:,}, listed above."
            self.report.write(told)
        lacking = only.lacking
        for text in warnings:
            self.report.warn(f"  {text}")
        if lacking:  # reported in full before it began
            self.report.warn(
                f"  {self.runtag} is incomplete: data that it does not contain was not changed."
            )
        for text in after.failures:
            self.report.fail(f"The restore is done, but a hook after it failed: {text}")
        if after.failures:
            return ExitCode.FAILED
        return ExitCode.WARNINGS if warnings or lacking else ExitCode.GOOD

    def _tell_done(self, facts: RestoreFacts) -> None:
        """Print what was restored, and what stayed: each thing once."""
        facts = replace(facts, stays=self._not_empty(facts.stays))
        lives = {each.live for each in facts.items}
        inside = {each.live for each in facts.items if not each.is_top_file}
        present = self._with_parts({*present_now(self.target)}, lives)
        loaded = (name for _, name in put_in_place(facts, self.manifest))
        titles = [*(e.title for e in facts.outside), *(e.title for e in facts.fillings)]
        titles += [each.title for each in facts.volumes]
        beside = _beside(facts)  # each has a separate line
        restored = "; ".join((*self._listed(sorted(lives - beside)), *loaded))
        if restored or not (titles or beside):
            self.report.write(f"  restored: {restored or 'nothing'}")
        if titles:
            outside = ", ".join(titles)
            self.report.write(f"  restored outside of the stack's folder: {outside}")
        if self.before.same:
            self.report.write(f"  unchanged: {', '.join(self.before.same)}")
        for what, names in self._left(facts, "not changed", present - inside):
            self.report.write(f"  {what}: {names}")
        for text in told_after(facts):
            self.report.write(f"  {text}")
        self._tell_missing(facts)

    def _tell_missing(self, facts: RestoreFacts) -> None:
        """Report what no backup has and is not here either, with how to get it."""
        manifest = self.manifest
        if manifest is None:
            return
        kept = {*facts.stays, *(what for each in facts.outside for what, _ in each.stays)}
        for each in manifest.left_out:
            place = f"{self.target.folder}/{plain_place(each.what)}"
            asked = not self.request.only or any(is_in(place, item.live) for item in facts.items)
            if not asked or each.what not in manifest.stays or each.what in kept:
                continue
            if not self._is_untouched(each.what, facts):
                told = f"  neither in the backup nor here: {each.what} ({each.reason})"
                self.report.write(told)

    def _not_empty(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the patterns without those of an empty folder: nothing of it stayed.

        Tar packs the folder itself, so it exists after any restore.
        """
        places = {each: f"{self.target.folder}/{plain_place(each)}" for each in patterns}
        words = ("find", *places.values(), "-maxdepth", "0", "-type", "d", "-empty", "-print0")
        empty: frozenset[str] = frozenset()
        if places:
            with contextlib.suppress(StepFailed):  # what cannot be read is reported as kept
                command = Command((*self.target.as_root, *words), ANY_EXIT)
                empty = frozenset(self.target.host.run(command).out.split("\0"))
        return tuple(each for each, place in places.items() if place not in empty)

    def _is_untouched(self, pattern: str, facts: RestoreFacts) -> bool:
        """Return whether left-out data are here, outside of everything that was put in place."""
        place = place_there(self.target, self.manifest, plain_place(pattern))
        lives = [*(each.live for each in facts.items), *(each.live for each in facts.outside)]
        return not any(is_in(place, each) for each in lives) and may_be_there(
            self.target.host, place
        )

    def _tell_beside(self, facts: RestoreFacts) -> None:
        """Report which top files are beside others, or replaced them, and which keys differ."""
        host, root = self.target.host, self.target.as_root
        tops = [e.aside for e in facts.items if is_top_file(posixpath.basename(e.staged))]
        there = host.stat(tops) if self.before.planner.takes_compose else {}
        replaced = []
        for item in facts.items:
            name = posixpath.basename(item.staged)
            here = f"{self.target.folder}/{name}"
            if item.live == here and is_top_file(name) and item.aside in there:
                replaced.append(name)
                told, other = (
                    f"{name} is now from the backup; the previous one is {item.aside}",
                    item.aside,
                )
            elif posixpath.basename(item.live) != name:
                told = (
                    f"{name} was not changed; the backup's copy is beside it as "
                    f"{name}.{self.runtag}"
                )
                other = item.live
            else:
                continue
            if name.endswith(".env"):
                keys = differing_keys(read_text(host, here, root), read_text(host, other, root))
                told += f"; they differ in {', '.join(keys) or 'nothing but form'}"
            self.report.write(f"  {told}")
        if replaced and not facts.bare:
            self.report.write(
                "  containers still use the previous compose file. To create them from the "
                f"backup's: {shlex.join(facts.compose)} up --detach"
            )

    def _tell_rows(self) -> None:
        """Report how many rows of hosts.toml the backup was made with and this machine lacks."""
        there = self.settings
        if self.request.host:
            machine = find_machine(there, self.request.host)
            there = there.of_machine(machine, self.target.folder)
        rows = self.manifest.rows if self.manifest and not self.request.only else ()
        if missing := missing_rows(rows, there):
            number = f"{missing} rows" if missing > 1 else "1 row"
            shows = f"inv show {shlex.quote(self.runtag)} --at {self.source.at}"
            if not self.source.at:  # a folder, or beside the stack of another machine
                shows = f"{self.runtag}.RESTORE.txt in {self.source.folder}"
            self.report.write(
                f"  hosts.toml is missing {number} that the backup was made with; later backups "
                f"may contain less. The rows are in: {shows}"
            )


def _beside(facts: RestoreFacts) -> set[str]:
    """Return the top files that are put beside the present ones."""
    tops = (each for each in facts.items if each.is_top_file)
    return {e.live for e in tops if posixpath.basename(e.live) != posixpath.basename(e.staged)}


def _kept(facts: RestoreFacts) -> list[str]:
    """Return what the backup left out and a restore keeps, by the names in messages."""
    outside = (f"{each.title}/{below}" for each in facts.outside for _, below in each.stays)
    return [*sorted(facts.stays), *sorted(outside)]


def differing_keys(here: str, there: str) -> tuple[str, ...]:
    """Return the names of the keys that differ between two env files; never their values."""
    mine, theirs = _read_env(here), _read_env(there)
    return tuple(sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k)))


def _read_env(text: str) -> dict[str, str]:
    pairs = (
        line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#")
    )
    return {key.removeprefix("export ").strip(): value for key, equals, value in pairs if equals}
