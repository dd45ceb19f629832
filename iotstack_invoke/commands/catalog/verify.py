"""Verifying sets: read again, compared with their manifests, and the results recorded."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from math import ceil
from random import random

from ... import __version__
from ...backups.manifest import Manifest, check_sum, has_sum, read_manifest, utc_text
from ...backups.names import TEXTS
from ...backups.sets import BackupSet, State, newest_first
from ...backups.transfer import can_hash, hash_there
from ...backups.verifications import HERE, Checks, Verification, in_places
from ...core.dataclass import dataclass
from ...core.errors import (
    ExitCode,
    Interrupted,
    IotstackError,
    NotFound,
    StepFailed,
    Unreachable,
    UsageError,
    WrongFolder,
    ended,
)
from ...core.processes import signals_raised
from ...core.runtag import LATEST
from ...databases.sql.servers import rows_told
from ...environment.environment import Environment
from ...parts.verify_archive import Reading, read_whole
from ...reporting.report import Report, size_text
from ...settings.model import Settings
from ...vaults.access import is_signed
from ...vaults.encrypted import CiphertextMismatch
from ..shared.backup_warnings import damaged_told
from ..shared.latest import PassedOver, passed_told
from .against import (
    content_differs,
    file_differs,
    manifest_gone,
    state_differs,
    texts_differ,
    told_otherwise,
    unnamed,
)
from .copies import (
    VAULT,
    Copy,
    choose_copy,
    copies_at,
    here_too,
    kinds_of,
    newer_elsewhere,
    places_meant,
    told_of_others,
)
from .listing import plain_check

MOST_TEXT_BYTES = 256 << 20
"""The maximum size of a text: a thousand times that of a usual log."""
PROGRAM = f"iotstack-invoke {__version__}"
USELESS = frozenset({State.DAMAGED, State.UNFINISHED})
VERIFIED = frozenset(State) - {State.UNFINISHED}
"""The states of sets that are compared with what they must be."""
ALL_PERCENT = 100.0
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%?", re.ASCII)
Elsewhere = Mapping[str, Sequence[BackupSet]]
"""The copies of each set in other locations, by runtag."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which copies to verify."""

    runtag: str = ""
    all: bool = False
    newest: bool = False
    at: str = ""
    percent: float = 0
    """How much of each place to read, of its bytes; 0 if all or one set is meant."""

    def __post_init__(self) -> None:
        """Raise UsageError if it is contradictory."""
        if sum((bool(self.runtag), self.all, self.newest, bool(self.percent))) > 1:
            raise UsageError("Give only one of: a runtag, --newest, --all, --sample.")

    @property
    def several(self) -> bool:
        """Whether more than one set of a place may be meant."""
        return self.all or bool(self.percent)


@dataclass(frozen=True, slots=True)
class Verified:
    """The report on a verified copy; the check in it is recorded."""

    check: Verification
    manifest: Manifest | None
    counted: tuple[str, ...] = ()
    """The contents of SQL dumps that were read, one line a part."""
    notes: tuple[str, ...] = ()
    """Which text of it was changed: the set is as good without."""
    advice: str = ""
    """What to do about a damaged one."""
    shut: bool = False
    """It is encrypted, and its contents were not read."""
    can_be_read: bool = False
    """Its archives were read to their end; a missing manifest is its only problem."""
    passed: tuple[PassedOver, ...] = ()
    """The newer sets that are not the latest."""
    elsewhere: bool = False
    """A newer one is in another location, or may be: it did not answer."""

    @property
    def as_adopted(self) -> Verified:
        """The same for an adopted set: its missing manifest is known, and no damage.

        It can be read to its end, or it is not adopted.
        """
        if not self.can_be_read or self.manifest:
            return self
        return replace(self, check=replace(self.check, good=True, problems=()))

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the set lacks, and why: it is incomplete, however good the rest of it is."""
        return self.manifest.lacks if self.manifest else ()

    @property
    def damaged(self) -> tuple[str, ...]:
        """A message if it holds databases that were damaged before: that is what was packed."""
        return tuple(filter(None, (damaged_told(self.manifest),)))

    @property
    def plain(self) -> dict[str, object]:
        """The same for programs."""
        lacking = self.manifest.lacking if self.manifest else ()
        return {
            "runtag": self.check.runtag,
            "at": self.check.at,
            **plain_check(self.check),
            "notes": [*self.notes, *self.damaged],
            "lacking": dict(lacking),
            "passed_over": [each.plain for each in self.passed],
        }


def verify(settings: Settings, wanted: Wanted, report: Report, *, as_json: bool) -> int:
    """Verify copies one by one, print the results, and return the exit code.

    1 if one is damaged or could not be read, or else 3 if one is incomplete, holds a database that
    was damaged before, or is the latest only because newer ones are not good. Raises NotFound if
    there are no copies.

    Each result is on disk before the next copy is begun; an interrupted one leaves no result.
    """
    environment = Environment.of(settings)
    done: list[Verified] = []
    missed = False
    try:
        with signals_raised():
            for found in _verify_each(environment, wanted, report):
                if isinstance(found, Verified):
                    done.append(found)
                    _tell(found, report, as_json=as_json)
                else:
                    missed = True
                    report.fail(f"not verified: {found}")
    except Interrupted as error:
        report.fail(f"The verification was {error}. Results so far are recorded.")
        return error.exit_code
    finally:
        environment.close()
    if as_json:
        report.write_json([each.plain for each in done])
    if not (done or missed):
        others = told_of_others(settings.vaults, wanted.runtag or LATEST, "--at")
        raise NotFound(f"Nothing to verify: no finished backups found.{others}")
    if missed or not all(each.check.good for each in done):
        return ExitCode.FAILED
    noted = any(each.lacks or each.notes or each.damaged or each.elsewhere for each in done)
    noted |= any(one.is_bad for each in done for one in each.passed)
    return ExitCode.WARNINGS if noted else ExitCode.GOOD


def _verify_each(
    environment: Environment, wanted: Wanted, report: Report
) -> Iterator[Verified | StepFailed]:
    """Verify the selected copies; continue after failures that say nothing about a copy."""
    default = (
        HERE if environment.host.listdir(environment.backups) or not environment.vaults else VAULT
    )
    record, said = environment.checks, environment.owner.read()
    checks = record.newest()
    places = places_meant(environment, wanted.at or default)
    for at in places:
        try:
            chosen = _chosen(environment, at, wanted, checks)
        except NotFound:
            if len(places) == 1:
                raise
            report.warn(f"{at} has no backup {wanted.runtag or LATEST}.")
            continue
        except Unreachable as error:
            was_here = HERE in places  # and was verified just before
            asked = "" if wanted.several or was_here else wanted.runtag or LATEST
            yield StepFailed(f"{ended(error)}{here_too(environment, asked, checks)}")
            continue
        except StepFailed as error:
            yield error
            continue
        elsewhere: tuple[str, ...] = ()
        if default == HERE and not (wanted.at or wanted.several) and wanted.runtag in ("", LATEST):
            elsewhere = newer_elsewhere(environment, chosen[0], checks)
            for told in elsewhere:
                report.warn(told)
        others = cache(partial(_elsewhere, environment, at))
        if wanted.percent:
            every = chosen
            chosen = sample(every, at, checks, wanted.percent)
            report.tell(_sample_told(chosen, every, at, wanted.percent))
        for copy in chosen:
            for told in passed_told(copy.passed, named="--runtag ", takes=VERIFIED):
                report.warn(told)
            report.tell(
                f"verifying {copy.runtag} {in_places(at)} ({size_text(copy.backup.size_bytes)})"
            )
            try:
                verified = verify_copy(copy)
                verified = replace(verified, passed=copy.passed, elsewhere=bool(elsewhere))
                if said.adopted(at, [copy.backup]):
                    verified = verified.as_adopted
                if not verified.check.good:
                    verified = replace(verified, advice=_advice(verified, copy, others()))
                record.add(verified.check)
                yield verified
            except StepFailed as error:
                yield StepFailed(f"{copy.runtag} {in_places(at)}: {error}")
            except IotstackError:
                raise
            except Exception as error:  # noqa: BLE001 - continue with the next one
                yield StepFailed(f"{copy.runtag} {in_places(at)}: cannot be verified: {error!r}")


def _with_manifest(copy: Copy) -> BackupSet:
    """Return the set of a copy with its manifest, if readable: it has the date of the set."""
    with contextlib.suppress(ValueError, StepFailed):
        return replace(copy.backup, manifest=copy.manifest())
    return copy.backup


def _chosen(environment: Environment, at: str, wanted: Wanted, checks: Checks) -> tuple[Copy, ...]:
    copies = copies_at(environment, at, checks)
    if wanted.several:
        finished = (each for each in copies if each.backup.state is not State.UNFINISHED)
        dated = [(each, _with_manifest(each)) for each in finished]
        return tuple(copy for copy, _ in newest_first(dated, lambda pair: pair[1]))
    copy = choose_copy(copies, wanted.runtag or LATEST, at, checks, environment.settings.vaults)
    if copy.backup.state is State.UNFINISHED:
        raise StepFailed(
            f"{copy.runtag} {in_places(at)} is unfinished, so it cannot be verified. To finish "
            f"it: inv backup --runtag '{copy.runtag}'"
        )
    return (copy,)


def read_percent(text: str) -> float:
    """Return the percentage of `5%` or `5`; 0 for ''. Raises UsageError."""
    if not text:
        return 0
    found = _PERCENT.fullmatch(text.strip())
    if not found or not 0 < float(found[1]) <= ALL_PERCENT:
        raise UsageError(f"--sample {text}: must be a percentage up to 100%, such as 5%.")
    return float(found[1])


def sample(copies: Sequence[Copy], at: str, checks: Checks, percent: float) -> tuple[Copy, ...]:
    """Return so many copies of one place that they have that share of its bytes, at least one.

    Those that were verified longest ago come first; a copy that never was counts from the time
    when it was made, and was read then. So all are read within as many runs as the share goes into
    the whole. Among equals chance decides.
    """

    def read_utc_of(copy: Copy) -> tuple[str, float]:
        check = checks.get((copy.runtag, at))
        made = _with_manifest(copy).made()
        since = check.utc if check else utc_text(made) if made else ""
        return since, random()  # noqa: S311 - no secret

    total = sum(copy.backup.size_bytes for copy in copies)
    chosen: list[Copy] = []
    for copy in sorted(copies, key=read_utc_of):
        if chosen and sum(e.backup.size_bytes for e in chosen) >= total * percent / ALL_PERCENT:
            break
        chosen.append(copy)
    return tuple(chosen)


def _sample_told(chosen: Sequence[Copy], every: Sequence[Copy], at: str, percent: float) -> str:
    part, total = (sum(copy.backup.size_bytes for copy in each) for each in (chosen, every))
    runs = ceil(ALL_PERCENT / percent)
    return (
        f"Sample {in_places(at)}: {len(chosen)} of {len(every)} backups, {size_text(part)} of "
        f"{size_text(total)}. Within {runs} such runs all of these are read."
    )


def verify_copy(copy: Copy) -> Verified:
    """Return the result of verifying one copy; raises StepFailed if it cannot be read.

    Archives are read to their last byte. On another machine that can hash, one with the manifest's
    hash is not fetched: it was verified when it was made.
    """
    content = copy.manifest_content()
    manifest, problems = _read_manifest(copy, content)
    if copy.encrypted and "manifest" not in copy.backup.files:
        problems.append("The manifest is missing.")
    elif copy.encrypted and not is_signed(copy.storage, copy.path("manifest")):
        problems.append("The manifest is not the one from when the backup was encrypted.")
    parts = {part.kind: part for part in manifest.made} if manifest else {}
    problems += unnamed(manifest, copy.backup.archives) if manifest else ()
    hashes_do = manifest is not None and has_sum(content) and not copy.encrypted and copy.far
    how, counted = "read", list[str]()
    for kind, sha256 in kinds_of(copy, manifest).items():
        name = copy.path(kind).rpartition("/")[2]
        if kind not in copy.backup.files:
            problems.append(_why_missing(copy, kind))
        elif copy.shut or (sha256 and hashes_do and can_hash(copy.storage)):
            how = "hash"
            size = copy.backup.files[kind].size_bytes
            try:
                found = hash_there(copy.storage, copy.path(kind))
                problems += file_differs(name, parts[kind], size, found) if kind in parts else ()
            except CiphertextMismatch as error:
                problems.append(str(error))
        else:
            reading = _read(copy, kind, manifest.included(kind) if manifest else ())
            if kind in parts:
                part = parts[kind]
                problems += file_differs(name, part, reading.size_bytes, reading.sha256)
                problems += content_differs(part, reading) if not reading.problems else ()
            problems += [f"{name}: {each}" for each in reading.problems]
            if reading.sql:
                counted.append(rows_told(kind, reading.sql.values()))
    notes: list[str] = []
    texts = {} if copy.shut else _texts(copy)
    can_be_read = not problems
    if not content and not copy.encrypted and "manifest" not in copy.backup.files:
        problems += manifest_gone(copy.runtag, texts)
    if manifest and not copy.shut:
        if has_sum(content):
            notes += texts_differ(manifest, content, texts, has_sum=True)
        else:
            problems += told_otherwise(manifest, texts["restore"]) if "restore" in texts else ()
            notes += texts_differ(manifest, content, texts, has_sum=False)
    check = Verification(
        runtag=copy.runtag,
        at=copy.at,
        utc=utc_text(datetime.now(UTC)),
        how=how,
        good=not problems,
        problems=tuple(problems),
        program=PROGRAM,
        made=manifest.finished_utc if manifest else "",
    )
    return Verified(
        check,
        manifest,
        tuple(counted),
        tuple(notes),
        shut=copy.shut,
        can_be_read=can_be_read and not copy.shut,
    )


def _read_manifest(copy: Copy, content: bytes) -> tuple[Manifest | None, list[str]]:
    """Return the manifest of a copy as far as it can be read, and its problems."""
    if not content:
        is_there = "manifest" in copy.backup.files
        return None, ["The manifest is damaged: it is empty."] if is_there else []
    try:
        manifest = read_manifest(content, copy.runtag, changed=True)
        problems = [*state_differs(json.loads(content).get("state"), manifest)]
    except ValueError as error:
        return None, [f"The manifest is damaged: {error}."]
    try:
        check_sum(content)
    except ValueError as error:
        problems.insert(0, f"The manifest is damaged: {error}.")
    return manifest, problems


def _texts(copy: Copy) -> dict[str, bytes]:
    """Return the readable texts of a copy; raises StepFailed if a connection is lost."""
    texts = {}
    for kind in (each for each in TEXTS if each in copy.backup.files):
        fact = copy.backup.files[kind]
        if fact.other or fact.size_bytes > MOST_TEXT_BYTES:
            texts[kind] = b""
            continue
        try:
            with copy.storage.read(copy.path(kind)) as stream:
                texts[kind] = stream.read()
        except CiphertextMismatch:
            texts[kind] = b""
    return texts


def _advice(verified: Verified, copy: Copy, found: Elsewhere | None) -> str:
    """Return what to do about a damaged copy: an unreachable location may have another."""
    runtag = copy.runtag
    others = found.get(runtag, []) if found is not None else None
    if others is None or any(
        each.state not in USELESS and "manifest" in each.files for each in others
    ):
        return f"Use another copy: inv show '{runtag}'"
    alone = "No other good copy is known." if others else "There is no other copy."
    if "manifest" not in copy.backup.files:
        return f"{alone} {bare_advice(copy, can_be_read=verified.can_be_read)}"
    if copy.at == HERE:
        again = f"inv backup --runtag '{runtag}' --force"
        return f"{alone} Rebuild it from the present data: {again}"
    return f"{alone} Make a new backup of the present data: inv backup"


def _elsewhere(environment: Environment, but: str) -> Elsewhere | None:
    """Return the copies in all locations but one; None if one of these is unreachable."""
    checks, found = environment.checks.newest(), dict[str, list[BackupSet]]()
    for at in (HERE, *environment.vaults):
        if at == but:
            continue
        try:
            sets = [each.backup for each in copies_at(environment, at, checks)]
        except WrongFolder:  # it holds no copies
            continue
        except StepFailed:
            return None
        for each in sets:
            if each.parts:
                found.setdefault(each.runtag, []).append(each)
    return found


def bare_advice(copy: Copy, *, can_be_read: bool) -> str:
    """Return what to do about archives that lost their manifest: they may be the only copy."""
    runtag, at = copy.runtag, "" if copy.at == HERE else f" --at {copy.at}"
    if can_be_read:
        return (
            "Its archives can be read completely, and no backup of the same name overwrites them. "
            f"To restore them: inv restore --runtag '{runtag}' --from {copy.at}. When newer "
            f"backups have the same content, the policy may remove them: inv prune{at} --adopt"
        )
    files = f"{shlex.quote(copy.folder)}/{shlex.quote(runtag)}.*"
    there = f" of {copy.at}" if copy.far else ""
    return (
        "No backup of the same name overwrites it, and no policy removes it, because parts of it "
        f"may still be useful. When you no longer need it, remove it by hand: rm {files}{there}"
    )


def _why_missing(copy: Copy, kind: str) -> str:
    """Return that an archive is missing, or what is at its path and is not followed."""
    path = copy.path(kind)
    fact = copy.storage.stat([path]).get(path)
    name = path.rpartition("/")[2]
    other = "" if fact is None else fact.other or "folder"
    return f"{name} is a {other}, not an archive." if other else f"{name} is missing."


def _read(copy: Copy, kind: str, included: tuple[str, ...]) -> Reading:
    """Read one archive to its end; a read error of the medium is a problem of the archive.

    If it cannot be decrypted, its hash tells whether it changed.
    """
    path = copy.path(kind)
    try:
        return read_whole(copy.storage, path, kind, included)
    except StepFailed as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EIO:
            return Reading(0, "", (f"the disk cannot read it ({cause.strerror}).",))
        try:
            if copy.encrypted and not error.again:
                hash_there(copy.storage, path)
        except CiphertextMismatch as broken:
            return Reading(0, "", (str(broken),))
        raise


def _tell(verified: Verified, report: Report, *, as_json: bool) -> None:
    check = verified.check
    where = f"{check.runtag} {in_places(check.at)}"
    for each in check.problems:
        report.fail(f"{where}: {each}")
    if not check.good:
        report.fail(f"{where} is damaged. {verified.advice}")
    elif not check.made:
        report.warn(
            f"{where} can be read completely, but is unproven: it has no manifest to compare with."
        )
    elif not as_json:
        how = "its hashes are right" if check.how == "hash" else "read completely"
        if verified.shut:
            how = "the encrypted copy is unchanged; use --identity FILE to also check its content"
        state = "is incomplete, but its content is good" if verified.lacks else "is good"
        state += ", except its texts" if verified.notes else ""
        report.write(f"{where} {state}: {how}.")
    if not as_json and check.good:
        for each in verified.counted:
            report.write(f"  {each} read")
    for each in (*verified.notes, *verified.lacks, *verified.damaged):
        report.warn(f"{where}: {each}")
