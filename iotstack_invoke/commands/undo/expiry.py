"""What a reload moved aside, and how long it is kept."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from ...backups.manifest import read_utc
from ...core.errors import Interrupted, IotstackError, Refused, StepFailed
from ...core.stack_folders import RESTORE
from ...environment.environment import Environment
from ...environment.stack_host import journal_paths
from ...hosts.base import ANY_EXIT, Command, Host, is_telling
from ...hosts.inspect import IN_ENGLISH, entries, read_text
from ...hosts.trust import Trust
from ...stack.kept_until import UNTIL_FILE
from ...stack.swap_entries import MOVED

_HELD = re.compile("Operation not permitted$")
"""What rm(1) prints for a file with chattr(1) +i, even to root."""
GONE_MARK = "removed"
"""In a folder whose old data were removed: nothing older can be undone."""
REMOVE_LIMIT_S = 3600.0


def remove_old(host: Host, folders: Iterable[str], as_root: tuple[str, ...]) -> None:
    """Remove old data, after which they cannot be restored; leaves a mark.

    The mark prevents `inv undo` from undoing something older. Raises StepFailed if not all of it
    is removed.
    """
    first, *others = folders
    others += [f"{each}{MOVED}" for each in others]
    script = (
        'first=$1; shift; : > "$first/$0" && rm -f "$first/journal" && rm -rf "$@" && '
        'find "$first" -mindepth 1 -maxdepth 1 ! -name "$0" -exec rm -rf {} +'
    )
    words = (*as_root, *IN_ENGLISH, "sh", "-c", script, GONE_MARK, first, *others)
    rest = shlex.join((first, *others))
    mark = shlex.quote(f"{first}/{GONE_MARK}")
    _remove(host, words, (first, *others), f"find {rest} -mindepth 1 ! -path {mark} -delete")


def remove_folders(host: Host, folders: Iterable[str], as_root: tuple[str, ...]) -> None:
    """Remove what no undo needs, without a mark; raises StepFailed if not all is removed."""
    paths = tuple(folders)
    words = (*as_root, *IN_ENGLISH, "rm", "-rf", "--", *paths)
    _remove(host, words, paths, f"rm -r {shlex.join(paths)}")


def _remove(host: Host, words: tuple[str, ...], folders: tuple[str, ...], by_hand: str) -> None:
    told = host.run(Command(words, ANY_EXIT, REMOVE_LIMIT_S))
    if told.exit_code:
        lines = [each.strip() for each in told.err.splitlines() if is_telling(each)]
        why = lines[0] if lines else told.last_line
        held = _HELD.search(why)
        cause = "It may be immutable. " if held else ""
        free = f"sudo chattr -R -i {shlex.join(folders)} && " if held else ""
        raise StepFailed(
            f"On {host.name}: {', '.join(folders)} was not removed completely: {why.rstrip('.')}. "
            f"{cause}When you no longer need it: {free}sudo {by_hand}"
        )


def find_expired(
    host: Host, stack: str, now: datetime | None = None, as_root: tuple[str, ...] = ()
) -> list[tuple[str, ...]]:
    """Return the folders of each expired reload of a stack.

    Not of one that is dated after the clock; [] while an undo is pending, which may need them.
    """
    if host.stat(journal_paths(stack)):
        return []
    now = now or datetime.now(UTC)
    found = []
    for name in sorted(entries(host, f"{stack}/{RESTORE}", as_root)):
        if not name.startswith("previous-"):
            continue
        folder = f"{stack}/{RESTORE}/{name}"
        told = read_text(host, f"{folder}/{UNTIL_FILE}", as_root)
        if told:
            refuse_strange(Trust(host, stack, as_root), stack, folder, [UNTIL_FILE])
        found.append(expired(told, folder, now))
    return [folders for folders in found if folders]


def remove_expired_here(
    environment: Environment,
    root: Callable[[], tuple[str, ...]],
    tell: Callable[[str], None],
    *,
    dry_run: bool = False,
) -> list[str]:
    """Remove the data of expired reloads beside a stack; return the errors.

    After an error the next one is removed. With `dry_run` nothing is removed. Raises Interrupted.
    """
    host, stack = environment.host, environment.settings.stack
    try:
        try:
            found = find_expired(host, stack.folder)
        except StepFailed:  # a run of root created one
            found = find_expired(host, stack.folder, as_root=root())
    except (Refused, StepFailed) as error:
        return [f"Cannot tell whether old data have expired: {error}"]
    failed = []
    for folders in found:
        if dry_run:
            tell(f"would be removed, because it has expired: {folders[0]}")
            continue
        try:
            remove_old(host, folders, root())
        except Interrupted:
            raise
        except IotstackError as error:
            failed.append(f"Old data are kept: {error}")
        else:
            tell(f"removed, because it had expired: {folders[0]}")
    return failed


def refuse_strange(trust: Trust, stack: str, folder: str, names: Iterable[str]) -> None:
    """Raise Refused if others may have written the records in an old state."""
    around = (f"{stack}/{RESTORE}/.", f"{folder}/.")
    files = [f"{folder}/{name}" for name in names]
    found = trust.stat([*around, *files])
    for path in files:
        trust.refuse(found[path])
        for each in around:
            trust.refuse(found[each], "d", path)


def expired(told: str, folder: str, now: datetime) -> tuple[str, ...]:
    """Return the expired folders by the record in one of them; () if they are kept.

    Besides itself it may name only folders with its name after a dot, as a swap on another file
    system makes them.
    """
    try:
        found = json.loads(told)
        since, until = read_utc(found["since"]), read_utc(found["until"])
        others = [str(each) for each in found["with"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    mine = f".{posixpath.basename(folder)}"
    if any(posixpath.basename(each) != mine or ".." in each.split("/") for each in others):
        return ()
    return (folder, *others) if since <= now and until <= now else ()
