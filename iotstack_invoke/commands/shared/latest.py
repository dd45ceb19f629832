"""Which set of a location is the latest, and the messages on newer ones that are not.

One rule for every use of `latest`: the newest good one; every newer set that is passed over is
named, with the reason, and with what helps.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from ...backups.sets import BackupSet, State
from ...backups.verifications import in_places
from ...core.dataclass import dataclass
from ...core.errors import StepFailed, Unreachable, ended
from ...environment.environment import Newest, newest_good
from ...hosts.base import Storage

MOST_TOLD = 3
MOST_NAMED = 20
ANY = frozenset(State)


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A set that is newer than the latest of its location, and why it is not the latest."""

    backup: BackupSet
    at: str
    """The location, as named in messages."""
    when: datetime
    why: str
    is_copy: bool = False
    """It is in a vault."""
    is_later: bool = False
    """It is good, and dated in the future: a clock is wrong, or was."""

    @property
    def runtag(self) -> str:
        """The name of the set."""
        return self.backup.runtag

    @property
    def is_bad(self) -> bool:
        """Whether a run of ours made it, and it is not as intended, or of unknown date."""
        bad = (State.DAMAGED, State.INCOMPLETE, State.UNFINISHED)
        return self.is_later or self.backup.state in bad

    @property
    def plain(self) -> dict[str, str]:
        """The same for programs."""
        return {"runtag": self.runtag, "at": self.at, "why": self.why}


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest set of a location, and the newer ones that were passed over, the newest first."""

    backup: BackupSet | None
    passed: tuple[PassedOver, ...] = ()


def latest_in(
    sets: Sequence[BackupSet],
    storage: Storage,
    folder: str,
    failed: Mapping[str, str],
    at: str,
    *,
    is_copy: bool = False,
    is_sound: bool = False,
) -> Latest:
    """Return the newest good one of some sets in a folder, by the times in their manifests.

    A name may give any time, or none. If all good ones are dated in the future, as on a new
    machine whose clock was never set, the newest of these; if none is good, the first of `sets`,
    None if there are none; `is_sound`: the first that is not damaged. In a folder that several
    machines share, the newest of this machine, if it has one. Raises StepFailed if a manifest
    cannot be read: the result might not be the latest.
    """
    now, here = datetime.now(UTC), socket.gethostname()
    try:
        newest = newest_good(storage, folder, now, failed=failed)
        if newest.good and newest.good.manifest and newest.good.manifest.host != here:
            own = newest_good(storage, folder, now, host=here, failed=failed)
            newest = own if own.good or own.later else newest
    except Unreachable:
        raise
    except StepFailed as error:
        raise StepFailed(
            f"Cannot tell which backup in {storage.name} is the latest: {ended(error)} "
            "Choose one with --runtag NAME; to list them: inv list",
            again=error.again,
        ) from error
    good = newest.good or _newest_later(newest, here)
    backup = next((each for each in sets if good and each.runtag == good.runtag), None)
    bad = {each.runtag for _, each in newest.newer if is_sound and each.state is State.DAMAGED}
    backup = backup or next((each for each in sets if each.runtag not in bad), None)
    host = good.manifest.host if good and good.manifest else ""
    passed = passed_over(newest, failed, at, host=host, is_copy=is_copy)
    tags = [each.runtag for each in passed]
    before = tags.index(backup.runtag) if backup and backup.runtag in tags else len(tags)
    return Latest(backup, passed[:before])


def passed_over(
    newest: Newest, failed: Collection[str], at: str, *, host: str = "", is_copy: bool = False
) -> tuple[PassedOver, ...]:
    """Return what is newer than the newest good set of a location, the newest first.

    `host`: leaves out sets beside another machine's manifest.
    """
    later = (
        PassedOver(
            each, at, when, f"is dated in the future ({when:%Y-%m-%d %H:%M} UTC)", is_copy, True
        )
        for when, each in newest.later
    )
    newer = (
        PassedOver(each, at, when, _why(each, failed, is_copy=is_copy), is_copy)
        for when, each in newest.newer
    )
    found = sorted((*later, *newer), key=lambda each: each.when, reverse=True)
    return tuple(
        each
        for each in found
        if not (host and each.backup.manifest) or each.backup.manifest.host == host
    )


def _newest_later(newest: Newest, here: str) -> BackupSet | None:
    """Return the newest of those dated in the future, of this machine if it has one."""
    found = [each for _, each in newest.later]
    own = (each for each in found if each.manifest and each.manifest.host == here)
    return next(own, next(iter(found), None))


def newer_than(
    passed: Iterable[PassedOver], runtag: str, made: datetime | None
) -> tuple[PassedOver, ...]:
    """Return passed-over sets that are newer than a set made then, without copies of it."""
    return tuple(e for e in passed if e.runtag != runtag and (made is None or e.when > made))


def _why(backup: BackupSet, failed: Collection[str], *, is_copy: bool) -> str:
    if backup.state is State.UNFINISHED:
        what = "its copy" if is_copy else "its run"
        return f"is unfinished: {what} is active or was interrupted"
    if backup.state is State.INCOMPLETE and backup.manifest:
        return f"is incomplete: no {', '.join(what for what, _ in backup.manifest.lacking)}"
    if backup.state is not State.DAMAGED:
        return "has no manifest that proves it"
    if backup.runtag in failed:
        return "is damaged: its last verification there failed"
    if "manifest" in backup.files and backup.manifest is None:
        return "is damaged: its manifest cannot be read"
    if len(backup.differing) == len(backup.unnamed):
        return "is damaged: it has an archive that its manifest does not list"
    return "is damaged: files of it are missing or have another size"


def passed_told(
    passed: Iterable[PassedOver],
    *,
    named: str = "",
    where: Callable[[PassedOver], str] = lambda _: "",
    host: str = "",
    takes: Collection[State] = ANY,
) -> tuple[str, ...]:
    """Return the messages on sets that were passed over, a sentence or two each.

    `named`: the flag before a runtag; `where`: the flags that select another location; `host`:
    those that select the machine of the stack; `takes`: the states of sets that may be named.
    """
    told = []
    listed = tuple(passed)
    for each in listed[:MOST_TOLD]:
        state, tag = each.backup.state, f"'{each.runtag}'"
        text = f"PASSED OVER: {each.runtag} {in_places(each.at)}, which is newer, {each.why}."
        if each.is_later:
            text += " The clock here is wrong, or was wrong where it was made: check `date`."
        elif state is State.DAMAGED:
            text += f" For details and other copies: inv show {tag}."
        elif state is State.INCOMPLETE:
            text += f" To complete it: inv backup{host} --runtag {tag}."
        elif state is State.UNFINISHED and each.is_copy:
            text += " If no run is active, finish it: inv sync."
        elif state is State.UNFINISHED:
            text += f" If no run is active, finish it: inv backup{host} --runtag {tag}."
        if state in takes and state is not State.DAMAGED and each.backup.archives:  # else it fails
            text += f" To use it anyway: {named}{tag}{where(each)}."
        told.append(text)
    if len(listed) > MOST_TOLD:
        more = [each.runtag for each in listed[MOST_TOLD:]]
        names = ", ".join(more[:MOST_NAMED])
        if len(more) > MOST_NAMED:
            names += f" and {len(more) - MOST_NAMED:,} more"
        told.append(f"The same applies to {names}. To see why: inv list")
    return tuple(told)
