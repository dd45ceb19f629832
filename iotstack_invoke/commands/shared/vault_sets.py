"""The sets of a vault, by the manifests here if they are the same."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ...backups.names import KINDS
from ...backups.sets import BackupSet, State, files_of, gather_sets, judged
from ...environment.environment import manifests_in
from ...hosts.base import FileFact, Storage

MANIFESTS_LIMIT_S = 10.0
"""The time limit for the manifests of one vault; sets after it remain unread."""

UNREAD = "unread"

ANOTHER = "another"
"""The vault has another backup of that name than this machine."""

DATES_APART_S = 2.0
"""A FAT file system stores times in steps of two seconds."""


def state_of_copy(here: BackupSet | None, copy: BackupSet) -> str:
    """Return the state of a copy in a vault, by its manifest or the same one here."""
    if copy.state is State.DAMAGED:
        return State.DAMAGED.value
    manifest = here.manifest if here else None
    if copy.manifest:
        return ANOTHER if manifest and manifest != copy.manifest else str(copy.state.value)
    if manifest is None:
        return UNREAD if "manifest" in copy.files else str(copy.state.value)
    if "manifest" not in copy.files:
        return State.UNFINISHED.value
    return str(judged(copy, manifest, failed_made=None).state.value)


def sets_there(
    storage: Storage,
    names: Mapping[str, FileFact],
    here: Mapping[str, BackupSet],
    failed: Mapping[str, str],
    wanted: Container[str] | None = None,
    *,
    outline: bool = False,
) -> list[BackupSet]:
    """Return the sets of a vault's listing; a manifest that is the same here is not opened.

    Only the sets of `wanted` are opened, if that is given. `failed` as in gather_sets, `outline`
    as in read_manifest: then the manifests of `here` are outlines as well.
    """
    failed = {tag: made for tag, made in failed.items() if is_of_set(here.get(tag), made)}
    sets = {each.runtag: each for each in gather_sets(names, None, failed)}
    other = {
        f"{tag}.{KINDS['manifest']}": each.files["manifest"]
        for tag, each in sets.items()
        if (wanted is None or tag in wanted)
        and "manifest" in each.files
        and not _same_manifest(here.get(tag), each)
    }
    manifests = manifests_in(storage, storage.root, other, MANIFESTS_LIMIT_S, outline=outline)
    if manifests:
        read = {tag: manifest for tag, manifest in manifests.items() if manifest}
        mine = {name: names[name] for tag in manifests for name in files_of(tag) if name in names}
        sets |= {each.runtag: each for each in gather_sets(mine, read, failed)}
    same = [each for tag, each in sets.items() if _same_manifest(here.get(tag), each)]
    sets |= {
        e.runtag: judged(e, here[e.runtag].manifest, failed_made=failed.get(e.runtag))
        for e in same
    }
    return list(sets.values())


def _same_manifest(here: BackupSet | None, there: BackupSet) -> bool:
    """Return whether two sets have one manifest, by the size and the date of its file."""
    if here is None or here.manifest is None or "manifest" not in there.files:
        return False
    ours, theirs = here.files["manifest"], there.files["manifest"]
    apart_s = abs(ours.modified_s - theirs.modified_s)
    return ours.size_bytes == theirs.size_bytes and apart_s <= DATES_APART_S


def is_of_set(backup: BackupSet | None, made: str) -> bool:
    """Return whether a verification is of this set, and not of an earlier one of its name."""
    return not (backup and backup.manifest) or backup.manifest.finished_utc == made
