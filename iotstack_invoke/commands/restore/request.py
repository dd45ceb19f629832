"""What the user requests of a restore, and where the backup comes from."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime

from ...backups.holdings import lacks, lacks_told
from ...backups.manifest import Manifest, check_size, read_manifest
from ...backups.names import KINDS, split_set_name
from ...backups.sets import BackupSet, State, gather_sets, judged
from ...backups.verifications import CHECKS_FILE, HERE, failed_at, in_places, read_checks
from ...core.dataclass import dataclass
from ...core.errors import NotFound, Refused, StepFailed, UsageError
from ...core.nearest import did_you_mean
from ...core.runtag import LATEST, read_runtag
from ...environment.environment import Environment, newest_good, sets_read, still_failed
from ...environment.stack_host import StackHost
from ...hosts.base import Storage
from ...hosts.inspect import host_name, read_text
from ...hosts.local import LocalHost
from ...hosts.trust import believed
from ...settings.model import Settings, VaultConfig
from ...vaults.access import HOST, at_address, refuse_shut, vault_storage
from ..catalog.copies import not_found, told_of_others
from ..shared.latest import PassedOver, latest_in, newer_than, passed_over, passed_told

MANIFESTS_LIMIT_S = 30.0
"""Time limit for reading the contents of older sets."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """The request of the user."""

    runtag: str
    host: str = ""
    source: str = ""
    only: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    """The live hosts that were named a second time as confirmation."""
    yes: bool = False
    strict: bool = False
    """Everything is undone if one container does not come up."""
    compose: bool = False
    """The backup's compose file and `.env` replace existing ones."""
    bare: bool = False
    """The machine is a new one: like `compose`, and everything is brought up from them."""
    exact: bool = False
    """What the target has and the backup lacks is moved aside as well."""

    @property
    def databases(self) -> tuple[str, ...]:
        """The only databases to replace, each named as influxdb:NAME."""
        found = (each.partition(":") for each in self.only)
        return tuple(name for kind, colon, name in found if colon and kind == "influxdb")

    @property
    def names(self) -> tuple[str, ...]:
        """The only services to restore."""
        return tuple(each for each in self.only if not each.startswith("influxdb:"))


@dataclass(frozen=True, slots=True)
class Source:
    """The source of the archives: a storage, and the folder in it."""

    storage: Storage
    folder: str
    in_place: bool
    """It is the target's own backups/: nothing is fetched."""
    name: str
    failed: Mapping[str, str] = field(default_factory=dict)
    """The runtags whose latest verification there failed, from failed_at."""
    vaults: tuple[VaultConfig, ...] = ()
    """The vaults that may hold another machine's backups, if this machine's are requested."""
    at: str = ""
    """Its name in this machine's log of verifications, if it is in it."""


def refuse_source(settings: Settings, asked: str) -> None:
    """Raise UsageError or NotFound if `--from` names nothing; '' means the default."""
    names = [each.name for each in settings.vaults]
    if asked == "vault" and not names:
        raise UsageError("--from vault: hosts.toml has no vaults.")
    if asked in ("", "here", "vault", *names) or at_address(settings.vaults, asked):
        return
    if "/" not in asked and asked != ".":
        known = ("vault", "here", *names)
        near = did_you_mean(asked, known)
        raise UsageError(
            f"--from {asked}: use one of {', '.join(known)}, or a folder (./{asked}).{near}"
        )
    folder = os.path.abspath(os.path.expanduser(asked))
    if os.path.isfile(folder):
        above, name = os.path.split(asked)
        raise UsageError(
            f"--from {asked}: this is a file. Give its folder and the backup: --from "
            f"{shlex.quote(above or '.')} --runtag {shlex.quote(_runtag_in(name))}"
        )
    if not os.path.isdir(folder):
        raise NotFound(f"--from {asked}: folder {folder} does not exist.")


@contextlib.contextmanager
def source_of(settings: Settings, request: RestoreRequest, target: StackHost) -> Iterator[Source]:
    """Yield the source of the archives: a vault, the target's own backups, or a folder.

    Raises as refuse_source does.
    """
    refuse_source(settings, request.source)
    asked = request.source or ("vault" if settings.vaults else "here")
    vaults = {each.name: each for each in settings.vaults}
    if asked == "here":
        failed = own_failed(target)
        at = HERE if isinstance(target.host, LocalHost) else ""
        yield Source(target.host, target.backups, True, f"{target.name}:backups", failed, at=at)
        return
    name = next(iter(vaults)) if asked == "vault" else asked
    other = at_address(settings.vaults, asked)
    if name not in vaults and not other:
        folder = os.path.abspath(os.path.expanduser(asked))
        storage = vault_storage(VaultConfig(asked, folder, identity=settings.identity))
        yield Source(storage, folder, False, asked)
        return
    if other:
        storage = vault_storage(*other)
    else:
        storage, name = _meant(vaults[name], request, target)
    try:
        failed = failed_at(Environment.of(settings).checks.newest(), name)
        yield Source(storage, storage.root, False, name, failed, settings.vaults, name)
    finally:
        storage.close()


def _runtag_in(name: str) -> str:
    """Return the runtag of a backup's file by its name; a word for one, if it is none."""
    found = split_set_name(name)
    return found[0] if found else "RUNTAG"


def _meant(vault: VaultConfig, request: RestoreRequest, target: StackHost) -> tuple[Storage, str]:
    """Return the machine of a vault that is requested by its name alone, and its address (0038).

    This machine's folder, or that of the restored host: the first that has the requested set.
    """
    whose = host_name(target.host) if request.host and vault.by_host else ""
    if whose in ("", socket.gethostname()) or not HOST.fullmatch(whose):
        return vault_storage(vault), vault.name
    own = (whose, f"{vault.name}/{whose}")
    both = (own, ("", vault.name)) if target.role == "live" else (("", vault.name), own)
    for host, address in both:
        storage = vault_storage(vault, host, made=bool(host))
        try:
            found = gather_sets(storage.listdir(storage.root), None)
        except StepFailed:  # reading from it reports the reason
            return storage, address
        if any(request.runtag in (each.runtag, LATEST) for each in found):
            return storage, address
        storage.close()
    return vault_storage(vault), vault.name


@dataclass(frozen=True, slots=True)
class Chosen:
    """The requested backup."""

    backup: BackupSet
    manifest: Manifest | None
    """None if it has none."""
    passed: tuple[PassedOver, ...] = ()
    """The newer ones that are not the latest."""


def choose_set(source: Source, asked: str) -> Chosen:
    """Return the requested backup.

    The latest is the newest with a manifest, or else without one, that is not known as damaged.
    """
    passed: tuple[PassedOver, ...] = ()
    names = source.storage.listdir(source.folder)
    failed = still_failed(source.storage, source.folder, names, source.failed)
    sets = gather_sets(names, None, failed)
    if asked == LATEST:
        sound = [each for each in sets if each.parts and each.state is not State.DAMAGED]
        whole = [each for each in sound if "manifest" in each.files] or sound
        latest = latest_in(
            *(whole, source.storage, source.folder, source.failed, source.name),
            is_copy=not source.in_place,
            is_sound=True,
        )
        if latest.backup is None:
            damaged = f" except damaged ones: {', '.join(each.runtag for each in sets)}"
            folder = f" ({source.folder})" if source.folder != source.name else ""
            raise NotFound(
                f"No backups found {in_places(source.name)}{folder}{damaged if sets else ''}."
                f"{told_of_others(source.vaults, asked, '--from')}"
            )
        backup, passed = latest.backup, latest.passed
    else:
        runtag = read_runtag(asked)
        found = {each.runtag: each for each in sets}
        if runtag not in found:
            others = told_of_others(source.vaults, runtag, "--from")
            raise not_found(runtag, found, source.name, others)
        backup = found[runtag]
        if not backup.parts:
            raise Refused(
                f"{runtag} {in_places(source.name)} has no archives, so there is nothing to "
                "restore. Nothing was changed."
            )
    refuse_shut(
        source.storage,
        (f"{source.folder}/{backup.runtag}.{KINDS[kind]}" for kind in backup.parts),
    )
    if "manifest" not in backup.files:
        return Chosen(backup, None, passed)
    path = f"{source.folder}/{backup.runtag}.{KINDS['manifest']}"
    try:
        check_size(backup.files["manifest"].size_bytes)
        with source.storage.read(path) as stream:
            content = stream.read()
        manifest = read_manifest(content, backup.runtag)
        backup = judged(backup, manifest, failed_made=failed.get(backup.runtag))
        return Chosen(backup, manifest, passed)
    except ValueError as error:
        raise Refused(
            f"The manifest of {backup.runtag} in {source.name} is damaged: {error}. Nothing was "
            "changed. Restore another copy (--from). To list the copies: inv show "
            f"'{backup.runtag}'"
        ) from error


def lacking_of(settings: Settings, source: Source, manifest: Manifest | None) -> str:
    """Return that the set chosen as the latest lacks what an older one has, or ''."""
    if manifest is None:
        return ""
    try:
        environment = Environment.of(settings)
        gone = environment.gone(environment.owner.read())
        sets = sets_read(source.storage, source.folder, MANIFESTS_LIMIT_S, source.failed)
    except StepFailed as error:
        return f"Cannot compare it with older backups: {error}"
    one = next((each for each in sets if each.runtag == manifest.runtag), None)
    told = lacks_told(lacks(one, sets, gone, here=source.in_place)) if one else ""
    return f"It is missing data that an older backup has: {told}." if told else ""


def newer_elsewhere(
    settings: Settings,
    target: StackHost,
    request: RestoreRequest,
    source: Source,
    chosen: BackupSet,
) -> Iterator[str]:
    """Yield where a backup newer than the latest of the vault is, or may be.

    On the target itself, and in the other vaults. Nothing if the user named the vault.
    """
    if request.runtag != LATEST or request.source or source.in_place:
        return
    where = "this machine" if isinstance(target.host, LocalHost) else target.name
    chosen_in = source.name.partition("/")[0]
    others = (each.name for each in settings.vaults if each.name != chosen_in)
    for flag, place in (("here", f"on {where} itself"), *((e, f"in {e}") for e in others)):
        try:
            with source_of(settings, replace(request, source=flag), target) as there:
                told = tuple(_newer_in(there, place, flag, source, chosen))
        except StepFailed as error:
            told = (f"Cannot check for a newer backup {place}: {error}",)
        yield from told


def _newer_in(
    there: Source, where: str, flag: str, source: Source, chosen: BackupSet
) -> Iterator[str]:
    """Yield what is newer in another location than the chosen set."""
    made = chosen.made()
    whose = chosen.manifest.host if chosen.manifest and not there.in_place else ""
    now, failed = datetime.now(UTC), there.failed
    newest = newest_good(there.storage, there.folder, now, host=whose, failed=failed)
    good = newest.good
    if good and newest.made and not (made and newest.made <= made):
        machine = good.manifest.host if good.manifest else "unknown"
        yield (
            f"A NEWER BACKUP exists {where}: {good.runtag}, made on {machine}. {source.name} has "
            f"nothing newer than {chosen.runtag}. To use the newer one: add --from {flag}. To "
            f"use this one without this message: add --from {source.name}."
        )
    passed = passed_over(newest, failed, there.name, host=whose, is_copy=not there.in_place)
    newer = newer_than(passed, chosen.runtag, made)
    yield from passed_told(newer, named="--runtag ", where=lambda _: f" --from {flag}")


def own_failed(target: StackHost) -> Mapping[str, str]:
    """Return which sets beside a target's stack failed their latest verification there."""
    path = f"{target.backups}/{CHECKS_FILE}"
    if not believed(target.host, path, target.as_root):
        return {}
    told = read_text(target.host, path, target.as_root)
    return failed_at(read_checks(told.splitlines()), HERE)
