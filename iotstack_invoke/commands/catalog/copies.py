"""The copies of the sets, here and in the vaults, and how to select them."""

from __future__ import annotations

import contextlib
import difflib
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ...backups.manifest import MOST_BYTES, Manifest, check_size, read_manifest
from ...backups.names import KINDS
from ...backups.sets import BackupSet, State, gather_sets
from ...backups.verifications import HERE, Checks, failed_at, in_places
from ...core.dataclass import dataclass
from ...core.errors import NotFound, StepFailed, Unreachable, UsageError, ended
from ...core.nearest import did_you_mean
from ...core.runtag import LATEST, read_runtag
from ...environment.environment import Environment, still_failed
from ...hosts.base import Storage
from ...settings.model import VaultConfig
from ...vaults.access import encrypted_storage, other_hosts, vault_storage
from ..shared.latest import Latest, PassedOver, latest_in, newer_than, passed_told

VAULT = "vault"
"""Every vault of the settings."""
ALL = "all"


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of a set in one location."""

    at: str
    storage: Storage
    folder: str
    backup: BackupSet
    far: bool
    """It is on another machine."""
    encrypted: bool = False
    """Some of it is encrypted there."""
    shut: bool = False
    """It is encrypted, and no key here decrypts it."""
    passed: tuple[PassedOver, ...] = ()
    """The newer sets that were passed over, if it was requested as the latest."""

    @property
    def in_place(self) -> bool:
        """Whether its archives can be used in place."""
        return not (self.far or self.encrypted)

    @property
    def runtag(self) -> str:
        """The name of the set."""
        return self.backup.runtag

    def path(self, kind: str) -> str:
        """Return the path of one of its files."""
        return f"{self.folder}/{self.runtag}.{KINDS[kind]}"

    def manifest(self) -> Manifest | None:
        """Return its manifest, None if it has none.

        Raises ValueError if it is damaged, StepFailed if it cannot be read.
        """
        if "manifest" not in self.backup.files:
            return None
        if self.backup.manifest:
            return self.backup.manifest
        check_size(self.backup.files["manifest"].size_bytes)
        return read_manifest(self.manifest_content(), self.runtag)

    def manifest_content(self) -> bytes:
        """Return its manifest as a file, b"" if it has none; cut if it is too large.

        Raises StepFailed if it cannot be read.
        """
        if "manifest" not in self.backup.files:
            return b""
        with self.storage.read(self.path("manifest")) as stream:
            return stream.read(MOST_BYTES + 1)


def places_meant(environment: Environment, asked: str, *, one: bool = False) -> tuple[str, ...]:
    """Return the locations of `--at`: here, a vault's name, vault (every one) or all.

    `one`: only one of them is used, so `all` is no choice; of the vaults it is the first. Another
    host's folder in a vault (`nas/other-pi`) counts only if it is named. Raises UsageError for any
    other.
    """
    names, several = (HERE, *environment.vaults), () if one else (ALL,)
    if asked == HERE or environment.knows(asked):
        return (asked,)
    if asked == ALL and not one:
        return names
    if asked == VAULT and environment.vaults:
        return names[1:]
    if asked == VAULT:
        raise UsageError("--at vault: hosts.toml has no vaults.")
    if not environment.vaults:
        raise UsageError(f"--at {asked}: hosts.toml has no vaults. Use {HERE}.")
    known = (*names, VAULT, *several)
    near = did_you_mean(asked, known)
    raise UsageError(f"--at {asked}: use one of {', '.join(known)}.{near}")


def copies_at(environment: Environment, at: str, checks: Checks) -> tuple[Copy, ...]:
    """Return all copies in one location, newest first; raises StepFailed if it does not answer."""
    if at == HERE:
        sets = environment.sets(checks)
        return tuple(
            Copy(at, environment.host, environment.backups, each, far=False) for each in sets
        )
    storage = environment.vaults[at]
    names = storage.listdir(storage.root)
    failed = still_failed(storage, storage.root, names, failed_at(checks, at))
    sets = gather_sets(names, None, failed)
    vault = at.partition("/")[0]
    far = any(each.is_far for each in environment.settings.vaults if each.name == vault)
    side = encrypted_storage(storage)
    copies = []
    for each in sets:
        files = (f"{storage.root}/{each.runtag}.{KINDS[kind]}" for kind in each.files)
        encrypted = bool(side and any(map(side.saw_encrypted, files)))
        shut = encrypted and not (side and side.identity)
        copies.append(
            Copy(at, storage, storage.root, each, far=far, encrypted=encrypted, shut=shut)
        )
    return tuple(copies)


def choose_copy(
    copies: tuple[Copy, ...],
    asked: str,
    where: str,
    checks: Checks,
    vaults: Iterable[VaultConfig] = (),
) -> Copy:
    """Return the copy of a runtag, or of `latest`: the newest that a run has finished.

    Raises NotFound, with the nearest names, or with where in `vaults` another machine's is.
    """
    found = {each.runtag: each for each in reversed(copies)}  # the first of a runtag counts
    if asked == LATEST:
        latest = _latest_of(copies, checks)
        if latest.backup is None:
            raise none_finished(where, latest.passed, told_of_others(vaults, asked, "--at"))
        return replace(found[latest.backup.runtag], passed=latest.passed)
    runtag = read_runtag(asked)
    if runtag not in found:
        raise not_found(runtag, found, where, told_of_others(vaults, runtag, "--at"))
    return found[runtag]


def _latest_of(copies: tuple[Copy, ...], checks: Checks) -> Latest:
    """Return the latest of the copies in one location: of those that a run has finished."""
    if not copies:
        return Latest(None)
    first = copies[0]
    sets = [each.backup for each in copies if each.backup.state is not State.UNFINISHED]
    failed = failed_at(checks, first.at)
    is_copy = first.at != HERE
    return latest_in(sets, first.storage, first.folder, failed, first.at, is_copy=is_copy)


def none_finished(where: str, passed: Iterable[PassedOver], others: str = "") -> NotFound:
    """Return the error for a location without a latest set, with its sets; as in not_found."""
    unfinished = ", ".join(dict.fromkeys(each.runtag for each in passed))
    but = f" except those that cannot be the latest: {unfinished}" if unfinished else ""
    return NotFound(f"No backups found {in_places(where)}{but}.{others}")


def not_found(runtag: str, known: Iterable[str], where: str, others: str = "") -> NotFound:
    """Return the error for a missing runtag, with the nearest existing ones.

    `others`: where another machine's is, from told_of_others.
    """
    listed = list(known)
    near = difflib.get_close_matches(runtag, listed, 3, 0.4) or listed[:3]
    offer = f" Nearest: {', '.join(near)}." if near else " No backups found."
    return NotFound(f"Backup {runtag} not found {in_places(where)}.{others or offer}")


def told_of_others(vaults: Iterable[VaultConfig], asked: str, flag: str) -> str:
    """Return the flag for a backup of another machine in vaults by host; '' for none.

    `inv list` shows such a backup, so a message must not say that none exists.
    """
    found = [each for vault in vaults if vault.by_host for each in _others_with(vault, asked)]
    if not found:
        return ""
    whose = "backups" if asked == LATEST else asked
    return f" Another machine's {whose}: {' or '.join(f'{flag} {each}' for each in found)}."


def _others_with(vault: VaultConfig, asked: str) -> Iterator[str]:
    """Yield whose folders of a vault hold a set, or any; nothing if it does not answer."""
    with contextlib.suppress(StepFailed):
        for address in other_hosts(vault):
            storage = vault_storage(vault, address.partition("/")[2])
            try:
                sets = gather_sets(storage.listdir(storage.root), None)
            finally:
                storage.close()
            if any(asked in (each.runtag, LATEST) for each in sets):
                yield address


def find_copy(
    environment: Environment,
    asked: str,
    at: str,
    checks: Checks,
    warn: Callable[[str], object],
    *,
    named: str = "",
) -> Copy:
    """Return the copy of a runtag in the locations of `at`; the first that has it.

    Without `at`, here and then vault by vault; for `latest` the newest of them all. Calls `warn`
    for each location that does not answer, and for newer sets that were passed over; `named` as in
    passed_told. Raises NotFound.
    """
    names = places_meant(environment, at or ALL)
    if asked == LATEST and not at:
        found, passed, away = _latest_of_each(environment, names, checks)
        if not found and away:
            raise away[0]
        if not found:
            others = told_of_others(environment.settings.vaults, asked, "--at")
            if not (passed or others or environment.far):
                others = " To make one: inv backup"
            raise none_finished(", ".join(names), passed, others)
        for error in away:
            warn(_may_be_newer(error))
        latest = max(found, key=_age)
        newer = newer_than(passed, latest.runtag, _age(latest)[1])
        for text in passed_told(newer, named=named, where=_at):
            warn(text)
        return replace(latest, passed=newer)
    where = ", ".join(names)
    copies: tuple[Copy, ...] = ()
    silent: list[StepFailed] = []
    for each in names:
        try:
            copies += copies_at(environment, each, checks)
        except StepFailed as error:
            silent.append(error)
        if any(asked in (copy.runtag, LATEST) for copy in copies):
            break
    try:
        copy = choose_copy(copies, asked, where, checks, environment.settings.vaults)
    except NotFound as error:
        others = told_of_others(environment.settings.vaults, asked, "--at")
        if asked == LATEST and not (copies or silent or others or environment.far):
            raise NotFound(f"{error} To make one: inv backup") from error
        if not silent:
            raise
        first = silent[0]
        if isinstance(first, Unreachable):
            raise Unreachable(f"{ended(first)}{here_too(environment, asked, checks)}") from first
        raise first from None
    for text in passed_told(copy.passed, named=named):
        warn(text)
    return copy


def newer_elsewhere(environment: Environment, chosen: Copy, checks: Checks) -> tuple[str, ...]:
    """Return where a newer backup of the same machine is than the latest of one location.

    Also where a newer one is passed over, and where that is unknown; a sentence each.
    """
    names = tuple(each for each in (HERE, *environment.vaults) if each != chosen.at)
    found, passed, away = _latest_of_each(environment, names, checks)
    is_ours, made = _age(chosen)
    newest = max((e for e in found if _age(e)[0] == is_ours), key=_age, default=None)
    newer = newer_than(passed, chosen.runtag, made)
    told = (
        *passed_told(newer, named="--runtag ", where=_at),
        *map(_may_be_newer, away),
    )
    if newest is None or newest.runtag == chosen.runtag or _age(newest)[1] <= made:
        return told
    text = (
        f"A NEWER BACKUP exists {in_places(newest.at)}: {newest.runtag}. {chosen.at} has nothing "
        f"newer than {chosen.runtag}. To use the newer one: add --at {newest.at}."
    )
    return (text, *told)


def _latest_of_each(
    environment: Environment, names: Iterable[str], checks: Checks
) -> tuple[list[Copy], list[PassedOver], list[StepFailed]]:
    """Return the latest of each location, what it passes over, and which did not answer."""
    found, passed, away = list[Copy](), list[PassedOver](), list[StepFailed]()
    for at in names:
        try:
            copies = copies_at(environment, at, checks)
            latest = _latest_of(copies, checks)
        except StepFailed as error:
            away.append(error)
            continue
        passed += latest.passed
        found += [each for each in copies if latest.backup and each.runtag == latest.backup.runtag]
    return found, passed, away


def _at(each: PassedOver) -> str:
    return f" --at {each.at}"


def _may_be_newer(error: StepFailed) -> str:
    return f"There may be a newer backup in a place that could not be read: {error}"


def _age(copy: Copy) -> tuple[bool, datetime]:
    """Return whether a copy is of this machine, and its date: the latest is the maximum."""
    manifest = None
    with contextlib.suppress(ValueError):
        manifest = copy.manifest()
    made = replace(copy.backup, manifest=manifest).made()
    is_ours = bool(manifest) and manifest.host == socket.gethostname()  # type: ignore[union-attr]
    return is_ours, made or datetime.min.replace(tzinfo=UTC)


def here_too(environment: Environment, asked: str, checks: Checks) -> str:
    """Return the end of a message on an unreachable vault if the same set is here."""
    with contextlib.suppress(NotFound, StepFailed):  # the vault was requested
        if asked:
            copy = choose_copy(copies_at(environment, HERE, checks), asked, HERE, checks)
            return told_here(copy.backup, "--at here")
    return ""


def told_here(backup: BackupSet, flag: str, where: str = HERE) -> str:
    """Return the same for a set, with the flag that selects it; '' for an unusable one.

    `where`: `here`, or `on` a host.
    """
    useless = backup.state in (State.DAMAGED, State.UNFINISHED)
    return "" if useless else f" {backup.runtag} also exists {where}: add {flag}."


def kinds_of(copy: Copy, manifest: Manifest | None) -> Mapping[str, str]:
    """Return the parts that a set has or must have, each with its expected hash, or ''."""
    told = {part.kind: part.sha256 for part in manifest.made} if manifest else {}
    return {**dict.fromkeys(copy.backup.archives, ""), **told}
