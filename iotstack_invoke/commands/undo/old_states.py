"""The states that restores and reloads replaced: which exist, their sizes, and which may go.

Each is a folder `restore/previous-RUNTAG-TIME`, with `.previous-RUNTAG-TIME` on other file
systems, which its journal names; `-undone` holds what was live until an undo. Removed only by a
successful run, under the lock of the stack.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ...core.dataclass import dataclass
from ...core.errors import Refused, StepFailed
from ...core.stack_folders import RESTORE
from ...engine.journal import Owed, owed_in
from ...environment.environment import Environment
from ...environment.stack_host import journal_paths
from ...hosts.base import ANY_EXIT, Command, Host, is_telling
from ...hosts.inspect import (
    GONE,
    IN_ENGLISH,
    read_text,
    root_words,
    stat_on,
    which_may_be_there,
)
from ...hosts.trust import Trust
from ...reporting.report import size_text
from ...settings.model import StackConfig
from ...stack.kept_until import UNTIL_FILE, read_until
from ..shared.restore_id import OF_RELOADS, STAMP_FORM, RestoreId, change_in, change_of
from .change_logs import remove_old_logs
from .elsewhere import ELSEWHERE_FILE, noted
from .expiry import GONE_MARK, refuse_strange, remove_expired_here, remove_folders, remove_old

SIZE_LIMIT_S = 120.0
_NAME = re.compile(r"\.?previous-(?P<key>.+-(?P<stamp>\d{8}T\d{6}Z)(?P<undone>-undone)?)")


@dataclass(frozen=True, slots=True)
class OldState:
    """What a restore or reload replaced, or what was live until it was undone."""

    name: str
    """`RUNTAG-TIME`, and `-undone`."""
    folders: tuple[str, ...]
    """Its folders; the first one is in restore/, even if it is empty."""
    since: datetime
    """When it was moved aside."""
    can_be_undone: bool = False
    """Its journal exists."""
    is_gone: bool = False
    """Its data were removed, and a mark of that is left."""
    until: datetime | None = None
    """Until when the user asked to keep it."""
    is_of_reload: bool = False
    """A reload of InfluxDB replaced it, and no restore of a backup with that name."""

    @property
    def is_undone(self) -> bool:
        """Whether it is what was live until an undo."""
        return self.name.endswith("-undone")

    @property
    def stamp(self) -> str:
        """When the change began, as in the name of its log."""
        return self.name.removesuffix("-undone").rpartition("-")[2]

    @property
    def change(self) -> RestoreId | None:
        """The restore or reload that it is of; None for a folder that only has such a name."""
        folder = f"previous-{self.name.removesuffix('-undone')}"
        return change_of(folder, reload=self.is_of_reload)

    @property
    def title(self) -> str:
        """The name in messages."""
        if self.is_undone:
            return f"what was live until {self.change or self.name} was undone"
        return f"before {self.change or self.name}"


def is_called_like_state(name: str) -> bool:
    """Return whether a folder of this name in restore/ would be taken for an old state."""
    return bool(_NAME.fullmatch(name))


def find_states(host: Host, stack: str, as_root: tuple[str, ...] = ()) -> tuple[OldState, ...]:
    """Return the old states of a stack, newest first; raises StepFailed if they are unreadable.

    Folders on other file systems are those that its own journal or note names: a folder that
    another stack put on the same drive is not ours to remove.
    """
    places = (f"{stack}/{RESTORE}", f"{stack}/volumes")
    pattern = ("-name", "previous-*", "-o", "-name", ".previous-*")
    words = ("find", *places, "-mindepth", "1", "-maxdepth", "1", "-type", "d", "(", *pattern, ")")
    told = stat_on(host, (*words, "-printf", "%T@ %p\\0"), as_root)
    found: dict[str, dict[str, float]] = {}
    for each in filter(None, told.split("\0")):
        changed, _, path = each.partition(" ")
        name = _NAME.fullmatch(posixpath.basename(path))
        if name:
            found.setdefault(name["key"], {})[path] = float(changed)
    trust = Trust(host, stack, as_root)
    states = [_state(host, stack, trust, key, paths) for key, paths in found.items()]
    # The note of an undo that was killed before its first step: its data are still live.
    ahead = {f"{each.name}-undone" for each in states if each.can_be_undone}
    held = (each for each in states if each.name not in ahead)
    return tuple(sorted(held, key=lambda each: (each.since, each.name), reverse=True))


def _state(host: Host, stack: str, trust: Trust, key: str, paths: dict[str, float]) -> OldState:
    first = f"{stack}/{RESTORE}/previous-{key}"
    stamp = datetime.fromtimestamp(0, UTC)
    with contextlib.suppress(ValueError):  # a folder with such a name that is not ours
        made = key.removesuffix("-undone")[-16:]
        stamp = datetime.strptime(made, STAMP_FORM).replace(tzinfo=UTC)
    is_undone = key.endswith("-undone")
    # What is undone was live until then: its folder is newer than its name.
    newest = max(paths.values()) if is_undone else 0.0
    state = OldState(
        key,
        (first, *sorted({*paths} - {first})),
        max(stamp, datetime.fromtimestamp(newest, UTC)),
        is_of_reload=key.startswith(f"{OF_RELOADS}-"),
    )
    if first not in paths:
        return state
    root = trust.as_root
    names = ("journal", GONE_MARK, UNTIL_FILE, ELSEWHERE_FILE)
    files = [f"{first}/{each}" for each in names]
    seen = which_may_be_there(host, files, root) if root else host.stat(files)
    there = {posixpath.basename(each) for each in seen}
    others: tuple[str, ...] = ()
    if there - {GONE_MARK}:
        refuse_strange(trust, stack, first, there)
        text = read_text(host, f"{first}/journal", root) if "journal" in there else ""
        lines = text.splitlines()
        noted_there = _noted(host, first, there, root)
        others = (*_folders_in(owed_in(lines), f"previous-{key}"), *noted_there)
        if change := change_in(lines):
            state = replace(state, is_of_reload=not change.runtag)
    is_asked = UNTIL_FILE in there
    until = read_until(read_text(host, f"{first}/{UNTIL_FILE}", root)) if is_asked else None
    return replace(
        state,
        folders=tuple(dict.fromkeys((*state.folders, *others))),
        can_be_undone="journal" in there,
        is_gone=GONE_MARK in there,
        until=until,
    )


def _folders_in(owed: Sequence[Owed], name: str) -> tuple[str, ...]:
    """Return the folders named like a state, after a dot, to which steps move data."""
    found = []
    for each in owed:
        path = str(each.fields.get("aside", ""))
        above, dot, below = path.partition(f"/.{name}")
        if dot and path.startswith("/") and below[:1] in ("", "/") and ".." not in path.split("/"):
            found.append(f"{above}{dot}")
    return tuple(dict.fromkeys(found))


def _noted(
    host: Host, folder: str, there: Iterable[str], as_root: tuple[str, ...]
) -> Iterator[str]:
    """Yield the folders on other file systems that the note of an undo or a reload names."""
    for name in {ELSEWHERE_FILE, UNTIL_FILE} & {*there}:
        yield from noted(read_text(host, f"{folder}/{name}", as_root), posixpath.basename(folder))


def judge_states(
    states: Sequence[OldState], stack: StackConfig, now: datetime
) -> tuple[tuple[OldState, ...], tuple[OldState, ...]]:
    """Return which of the states are kept, and which may be removed; `states` newest first.

    The newest `keep_previous` are kept, and all that are newer than `keep_previous_days`; one that
    the user asked to keep until a day, until then. If the clock is before their times, all are
    kept.
    """
    stay: list[OldState] = []
    go: list[OldState] = []
    days = timedelta(days=stack.keep_previous_days)
    held = [each for each in states if not each.is_gone]
    for number, each in enumerate(held):
        young = each.since > now or now - each.since < days
        asked = each.until is not None
        kept = number < stack.keep_previous or young or asked
        (stay if kept else go).append(each)
    return tuple(stay), tuple(go)


def remove_states(
    host: Host,
    stack: StackConfig,
    root: Callable[[], tuple[str, ...]],
    tell: Callable[[str], None],
    *,
    dry_run: bool = False,
) -> None:
    """Remove the old states that may be removed; raises StepFailed with those that failed.

    Old logs of states that are gone by then are removed as well. None while an undo is pending,
    which may need them. The mark of a removed one is kept as long as an older one could be undone.
    """
    if host.stat(journal_paths(stack.folder)):
        return
    try:
        states = find_states(host, stack.folder)
    except StepFailed:  # a run of root created one
        states = find_states(host, stack.folder, root())
    stay, going = judge_states(states, stack, datetime.now(UTC))
    failed = []
    for each in reversed(going):
        told = f"{each.title} ({each.folders[0]})"
        if dry_run:
            tell(f"would be removed, because [stack] keep_previous no longer keeps it: {told}")
            continue
        # No undo goes past an undone one: it needs no mark.
        remove = remove_folders if each.is_undone else remove_old
        try:
            remove(host, each.folders, root())
        except StepFailed as error:
            failed.append(str(error))
        else:
            tell(f"removed, because [stack] keep_previous no longer keeps it: {told}")
    if not dry_run and not failed and (going or any(each.is_gone for each in states)):
        _clear_marks(host, stack.folder, root)
    remove_old_logs(host, stack.folder, {e.stamp for e in stay}, tell, dry_run=dry_run)
    if failed:
        raise StepFailed(" ".join(failed))


def remove_old_here(
    environment: Environment, tell: Callable[[str], None], *, dry_run: bool = False
) -> list[str]:
    """Remove old states of restores and reloads beside a stack; return the errors."""
    host, stack = environment.host, environment.settings.stack

    def root() -> tuple[str, ...]:
        return root_words(host, host.name, sudo=stack.sudo)

    failed = remove_expired_here(environment, root, tell, dry_run=dry_run)
    try:
        remove_states(host, stack, root, tell, dry_run=dry_run)
    except (Refused, StepFailed) as error:
        failed.append(f"Old states were not removed: {error}")
    return failed


def _clear_marks(host: Host, stack: str, root: Callable[[], tuple[str, ...]]) -> None:
    """Remove the marks that protect nothing, since all older states are gone."""
    for each in reversed(find_states(host, stack, root())):
        if not each.is_gone and not each.is_undone:
            return
        if each.is_gone:
            remove_folders(host, each.folders[:1], root())


@dataclass(frozen=True, slots=True)
class Taken:
    """The disk space of old states."""

    size_bytes: int
    is_whole: bool
    """All of them could be read."""

    def __str__(self) -> str:
        """Return it for people."""
        return f"{'' if self.is_whole else 'more than '}{size_text(self.size_bytes)}"


def sizes_of(
    host: Host, states: Iterable[OldState], as_root: tuple[str, ...] = ()
) -> dict[str, Taken]:
    """Return the size of each, by name; one that takes too long has no entry."""
    found = {}
    for each in states:
        words = (*as_root, *IN_ENGLISH, "du", "-s", "-c", "-B1", "--", *each.folders)
        try:
            told = host.run(Command(words, ANY_EXIT, SIZE_LIMIT_S))
        except StepFailed:
            continue
        said = [line for line in told.err.splitlines() if is_telling(line)]
        unread = [line for line in said if not line.endswith(GONE)]
        total = told.out.rpartition("\ttotal\n")[0].rpartition("\n")[2]
        if total.isdigit():
            found[each.name] = Taken(int(total), not (told.exit_code and unread))
    return found


def sum_of(sizes: Mapping[str, Taken], states: Sequence[OldState]) -> Taken:
    """Return the size of all states together."""
    whole = len(sizes) == len(states) and all(each.is_whole for each in sizes.values())
    return Taken(sum(each.size_bytes for each in sizes.values()), whole)


def states_told(host: Host, stack: str, as_root: tuple[str, ...] = ()) -> str:
    """Return how many old states there are and their size, in words; '' for none."""
    try:
        states = [each for each in find_states(host, stack, as_root) if not each.is_gone]
    except (Refused, StepFailed):
        return ""
    if not states:
        return ""
    total = sum_of(sizes_of(host, states, as_root), states)
    one = len(states) == 1
    many = "1 old state" if one else f"{len(states)} old states"
    return f"{many} kept by restores {'takes' if one else 'take'} {total}"
