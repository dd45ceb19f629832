"""Old backups are removed by a policy, here and in the vaults; each location by its own sets.

gather and judge → show every decision → remove. Not for: the policy itself (retention.py).
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime

from ...backups.holdings import Gone, holdings_of, lacks, lacks_cured, meanings, spelled_all
from ...backups.owner import OwnerNotes
from ...backups.retention import (
    MOST_SETS,
    POLICY_KEYS,
    KeepDecision,
    Policy,
    judge,
    judge_each_host,
    policy_mistakes,
    policy_text,
    read_policy,
)
from ...backups.sets import (
    GOOD,
    BackupSet,
    State,
    newest_first,
    removals_in,
    runtags_in,
    strangers_in,
)
from ...backups.verifications import HERE, Checks, failed_at
from ...core.dataclass import dataclass
from ...core.errors import ExitCode, Interrupted, Refused, StepFailed, UsageError
from ...core.nearest import did_you_mean, nearest
from ...core.processes import signals_raised
from ...core.units import ambiguity_in
from ...environment.environment import Environment, finish_removals, remove_set, sets_in
from ...hosts.base import FileFact, Storage
from ...reporting.report import Report, age_text
from ...settings.model import Settings
from ..shared.confirm import ask
from ..undo.old_states import remove_old_here
from ..vaults.replication import DELIVERED, Delivery, compare_vaults
from .adopt import adopt

EVERY_VAULT = "vault"
EVERYWHERE = "all"
NO_POLICY = "hosts.toml has no policy for this vault, so nothing is removed."
WRITE_ONCE = (
    "Nothing can be removed there (write_once = true): the lifecycle rules of the bucket remove "
    "old backups."
)
_NUMBER = re.compile(r"-?[0-9]{1,9}")
STRANGERS_SHOWN = 5
NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """The request of the user, besides a policy."""

    at: str = HERE
    gone: tuple[str, ...] = ()
    """Parts, containers and databases that newer sets need not hold."""
    adopt: bool = False
    undelivered: bool = False
    """Also remove sets here that a vault lacks, or may lack."""
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of all locations when one of them is judged."""

    now: datetime
    checks: Checks
    said: OwnerNotes
    gone: tuple[Gone, ...]
    pinned: frozenset[str]
    """Runtags that are pinned anywhere."""


@dataclass(slots=True)
class Pruning:
    """One location, its policy, and the decisions; without a policy all sets are kept."""

    name: str
    storage: Storage
    folder: str
    policy: Policy | None
    write_once: bool = False
    """Nothing can be removed there, whatever a policy says."""
    by_flags: bool = False
    """The policy is from the command line, not from hosts.toml."""
    sets: tuple[BackupSet, ...] = ()
    verdicts: tuple[KeepDecision, ...] = ()
    adopted: frozenset[str] = frozenset()
    begun: frozenset[str] = frozenset()
    """Sets that an earlier run left partly removed."""
    names: Mapping[str, FileFact] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    """What each vault lacks of the sets here, if some would be removed."""
    held: tuple[str, ...] = ()
    """The sets that would be removed here if no vault lacked them."""
    error: str = ""

    def look(self, known: Known, *, asked: bool = False) -> None:
        """Judge the existing sets, with their verifications; raises StepFailed.

        `asked`: their contents are needed even if no policy judges them.
        """
        names = self.names = self.storage.listdir(self.folder)
        self.begun = removals_in(names)
        self.strangers = strangers_in(names)
        if self.policy or asked:
            self.sets = tuple(
                replace(each, pinned=each.pinned or each.runtag in known.pinned)
                for each in sets_in(
                    self.storage, self.folder, failed_at(known.checks, self.name), names
                )
            )
        if self.policy:
            self.adopted = known.said.adopted(self.name, self.sets)
            self.judge(known)

    def judge(self, known: Known) -> None:
        """Decide about each set."""
        if self.policy:
            rules = (self.policy, known.now, known.gone, self.adopted)
            alone = self.name == HERE
            verdicts = (judge if alone else judge_each_host)(self.sets, *rules)
            if alone:
                verdicts = tuple(_held(e, known.checks) for e in verdicts)
            self.verdicts = verdicts

    def hold(self, deliveries: Sequence[Delivery], *, undelivered: bool) -> None:
        """Keep sets to be removed that a vault lacks or may lack; or only report it."""
        self.deliveries = tuple(deliveries)
        lacking = {each.runtag: self.lacking(each) for each in self.going}
        self.held = () if undelivered else tuple(tag for tag, why in lacking.items() if why)
        self.verdicts = tuple(
            replace(e, keep=not undelivered, why=f"{e.why}; {why}" if undelivered else why)
            if not e.keep and (why := lacking[e.backup.runtag])
            else e
            for e in self.verdicts
        )

    def lacking(self, backup: BackupSet) -> str:
        """Return which vaults lack a finished set, or may lack it; '' for none."""
        return "; ".join(
            f"{each.name} is missing it"
            if each.looked
            else f"{each.name} may be missing it: unreachable"
            for each in self.deliveries
            if backup.state in DELIVERED and each.lacks(backup.runtag)
        )

    def act(self) -> None:
        """Remove the expired sets, the oldest first; raises StepFailed."""
        if not self.policy:
            return
        finish_removals(self.storage, self.folder)
        for verdict in reversed(self.verdicts):
            if not verdict.keep:
                remove_set(self.storage, self.folder, verdict.backup.runtag)

    @property
    def going(self) -> tuple[BackupSet, ...]:
        """The sets to remove."""
        return tuple(each.backup for each in self.verdicts if not each.keep)

    @property
    def count(self) -> int:
        """How many sets are removed."""
        return len(self.going)


def _held(verdict: KeepDecision, checks: Checks) -> KeepDecision:
    """Return a decision that keeps a set here as long as a copy of it is known as damaged."""
    manifest = verdict.backup.manifest
    damaged = [
        check.at
        for check in checks.values()
        if check.runtag == verdict.backup.runtag
        and check.at != HERE
        and not check.good
        and (manifest is None or manifest.finished_utc == check.made)
    ]
    if verdict.keep or not damaged or verdict.backup.state is State.DAMAGED:
        return verdict
    return replace(verdict, keep=True, why=f"its copy in {', '.join(damaged)} is damaged")


def read_flags(flags: Mapping[str, str]) -> Policy | None:
    """Return the policy of the command line, None if it has none.

    Raises UsageError with all mistakes.
    """
    given: dict[str, int | str] = {}
    mistakes = []
    for key, text in flags.items():
        if text and POLICY_KEYS[key] is int and not _NUMBER.fullmatch(text):
            mistakes.append((key, f"must be a whole number, at most {MOST_SETS:,}"))
        elif key == "keep_within" and (ambiguous := ambiguity_in(text)):
            mistakes.append((key, ambiguous))
        elif text:
            given[key] = int(text) if POLICY_KEYS[key] is int else text
    if not given and not mistakes:
        return None
    mistakes = mistakes or policy_mistakes(given)
    if mistakes:
        lines = (
            f"--{key.replace('_', '-')} {flags[key] or 0}: {wrong}" for key, wrong in mistakes
        )
        raise UsageError("\n".join(f"{line}." for line in lines))
    return read_policy(given)


def prune(
    settings: Settings, request: PruneRequest, flags: Mapping[str, str], report: Report
) -> int:
    """Remove what the policy expires, and return the exit code.

    A failing location does not stop the others. Raises Refused if removals in a vault are not
    confirmed, and if they changed during the question: the question holds no lock that a backup
    needs.
    """
    environment = Environment.of(settings)
    stay: list[str] = []
    try:
        prunings = _choose(environment, request.at, read_flags(flags))
        dry_run = request.dry_run
        with signals_raised():
            with contextlib.nullcontext() if dry_run else environment.held("prune"):
                request = _look(environment, prunings, request, report)
                question = "" if dry_run else _question(environment, prunings, request)
                if not question:
                    stay = _act(environment, prunings, request, report)
            if question:
                report.flush()
                ask(request.at, question)
                with environment.held("prune"):
                    _look_again(environment, prunings, request)
                    stay = _act(environment, prunings, request, report)
            stay += [line for each in prunings for line in _held_told(each)]
    except Interrupted as error:
        report.fail(
            f"Prune: {error}. Partly removed backups are no longer listed; the next prune or "
            "backup removes the rest."
        )
        return error.exit_code
    finally:
        environment.close()
    code = _close(prunings, report, dry_run=dry_run, as_json=request.as_json)
    for text in stay:
        report.fail(text)
    return ExitCode.WARNINGS if stay and code == ExitCode.GOOD else code


def _act(
    environment: Environment, prunings: list[Pruning], request: PruneRequest, report: Report
) -> list[str]:
    """Remove the expired sets, unless it is a dry run; return messages on old data that stay."""
    if not request.dry_run:
        _write_down(environment, prunings, request)
        for each in prunings:
            with _noted(each):
                if not each.error:
                    each.act()
    if all(each.name != HERE for each in prunings):
        return []
    tell = report.tell if request.as_json else report.write
    return remove_old_here(environment, tell, dry_run=request.dry_run)


def _held_told(here: Pruning) -> Iterator[str]:
    """Yield which sets are kept here as a vault lacks them, or may lack them, and what helps."""
    for each in here.deliveries:
        held = [tag for tag in here.held if each.lacks(tag)]
        them = "them" if len(held) > 1 else "it"
        lacks = "is missing" if each.looked else "is unreachable and may be missing"
        if held:
            yield (
                f"{each.name} {lacks} {', '.join(held)}: not removed here. `inv sync` copies "
                f"{them} there; inv prune --undelivered removes {them} anyway."
            )


def _known(
    environment: Environment, gone: Iterable[str]
) -> tuple[Known, Mapping[str, StepFailed]]:
    """Return what is known now, and errors of reading pins; `gone`: declared gone."""
    said = environment.owner.read()
    pinned, away = environment.pinned()
    all_gone = (*map(Gone, gone), *environment.gone(said))
    return Known(datetime.now(UTC), environment.checks.newest(), said, all_gone, pinned), away


def _look_at(prunings: list[Pruning], known: Known, *, asked: bool) -> None:
    """List all locations that have answered so far, and judge them."""
    for each in prunings:
        with _noted(each):
            if not each.error:
                each.look(known, asked=asked)


def _hold(
    environment: Environment,
    prunings: list[Pruning],
    known: Known,
    away: Mapping[str, StepFailed],
    request: PruneRequest,
) -> None:
    """Keep here what a vault lacks, or may lack if it did not answer, as after a backup."""
    for here in (each for each in prunings if each.name == HERE and not each.error):
        if any(each.state in DELIVERED for each in here.going):
            names = [each.name for each in environment.settings.vaults]
            asked = [name for name in names if name not in away]
            found = compare_vaults(environment, asked, here.sets, known.checks)
            found += [
                Delivery(name, environment.vaults[name], error=str(away[name]))
                for name in names
                if name in away
            ]
            here.hold(found, undelivered=request.undelivered)


def _look_again(environment: Environment, prunings: list[Pruning], request: PruneRequest) -> None:
    """Judge again after the question; raises Refused if the decisions changed."""
    confirmed = [each.verdicts for each in prunings]
    known, away = _known(environment, request.gone)
    _look_at(prunings, known, asked=bool(request.gone))
    _hold(environment, prunings, known, away, request)
    changed = [
        each.name
        for each, verdicts in zip(prunings, confirmed, strict=True)
        if each.verdicts != verdicts and not each.error
    ]
    if changed:
        raise Refused(
            f"The backups in {', '.join(changed)} changed before you confirmed, so the list is "
            "out of date. Nothing was removed. Run it again."
        )


def _look(
    environment: Environment, prunings: list[Pruning], request: PruneRequest, report: Report
) -> PruneRequest:
    """Judge all locations, and show the decisions; return the request with unambiguous names."""
    known, away = _known(environment, ())
    _look_at(prunings, known, asked=bool(request.gone))
    if request.gone:
        request = replace(request, gone=_meant(prunings, request.gone))
        known = replace(known, gone=(*map(Gone, request.gone), *known.gone))
        for each in prunings:
            if not each.error:
                each.judge(known)
    for name, error in away.items():
        if not any(each.error == str(error) for each in prunings):
            report.warn(
                f"{name} is unreachable, so pins that exist only in {name} are ignored: {error}"
            )
    adopted = False
    for each in prunings:
        with _noted(each):
            if not each.error:
                adopted |= _adopt(environment, each, known, request, report)
    if adopted:
        known, away = _known(environment, request.gone)
        _look_at(prunings, known, asked=bool(request.gone))
    _hold(environment, prunings, known, away, request)
    stay = list(
        environment.sets(known.checks) if environment.host.stat([environment.backups]) else ()
    )
    for each in prunings:
        if each.name == HERE and not each.error:
            going = {backup.runtag for backup in each.going}
            stay = [backup for backup in stay if backup.runtag not in going]
        if not request.as_json:
            _show(each, report, dry_run=request.dry_run)
            if not each.error:
                _tell_return(environment, each, stay, report)
                _tell_lacking(each, known, report)
    return request


def _meant(prunings: list[Pruning], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is declared gone, by names that each mean one thing.

    Raises UsageError for a name that is in no set, since a typing error would have no effect, and
    for a name of several things.
    """
    held = frozenset().union(*(holdings_of(each) for one in prunings for each in one.sets))
    found = {each: meanings(each, held) for each in names}
    for name, several in found.items():
        if len(several) > 1:
            flags = " or ".join(f"--allow-missing {shlex.quote(each)}" for each in several)
            raise UsageError(f"--allow-missing {name} is ambiguous. Use {flags}.")
    wrong = [each for each in names if not found[each]]
    if wrong and not any(each.error for each in prunings):
        known = spelled_all(held)
        near = list(dict.fromkeys(name for each in wrong for name in nearest(each, known)))
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(
            f"--allow-missing {', '.join(wrong)}: no backup there has a part, container, "
            f"database, path or volume of that name.{meant} Known: {_first(known)}."
        )
    return tuple((found[each] or (each,))[0] for each in names)


def _first(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join([*names[:NAMES_SHOWN], *([f"{more} more"] if more > 0 else [])])


def _adopt(
    environment: Environment, pruning: Pruning, known: Known, request: PruneRequest, report: Report
) -> bool:
    """Adopt archives without a manifest that can be read to their end, and judge again.

    Returns whether what is known of any has changed.

    With `adopt` of hosts.toml only those here that would be removed, and none that is known as
    damaged. On the command line those are read again: they may only have lost their manifest.
    """
    foreign = {e.runtag for e in pruning.sets if e.is_foreign} - pruning.adopted
    if not request.adopt:
        foreign -= {e.runtag for e in pruning.sets if e.state is State.DAMAGED}
    by_settings = pruning.name == HERE and environment.settings.stack.adopt
    if not foreign or not (request.adopt or by_settings) or not pruning.policy:
        return False
    before = pruning.adopted
    pruning.adopted = before | foreign
    pruning.judge(known)
    if not request.adopt:
        foreign &= {each.runtag for each in pruning.going}
    if request.dry_run:
        for runtag in sorted(foreign):
            report.tell(f"{runtag} would be read completely first, then adopted")
        pruning.adopted = before | foreign
    else:
        adopt(environment, pruning.name, foreign, known.checks, report)
        pruning.adopted = before
    pruning.judge(known)
    return bool(foreign) and not request.dry_run


def _question(environment: Environment, prunings: list[Pruning], request: PruneRequest) -> str:
    """Return what the user must confirm, in all locations; '' for nothing.

    Raises Refused without a terminal: then only vault policies of the command line, and
    undelivered sets to be removed here without another known copy, must be confirmed, by --yes.
    The policies in hosts.toml need no confirmation.
    """
    losing = [each for each in prunings if each.count and not each.error]
    if request.yes or not losing:
        return ""
    if not sys.stdin.isatty() or request.as_json:
        vaults = [each for each in losing if each.name != HERE]
        typed = [each for each in vaults if each.by_flags or request.gone or request.adopt]
        last = {e.runtag for one in typed for e in one.going} - _staying(environment, prunings)
        last |= _last_here(prunings)
        if not last:
            return ""
        listed = ", ".join(sorted(last))
        raise Refused(
            f"{listed} may have no other copy, and there is no terminal to confirm on. Nothing "
            "was removed. To remove: add --yes."
        )
    listed = ", ".join(f"{each.count} {_from(each)}" for each in losing)
    alone = ", ".join(sorted(_last_here(prunings)))
    return f"remove backups ({listed}{f'; possibly the only copy: {alone}' if alone else ''})"


def _last_here(prunings: list[Pruning]) -> set[str]:
    """Return the undelivered sets to be removed here of which no vault is known to have a copy."""
    going = {each.name: {backup.runtag for backup in each.going} for each in prunings}
    return {
        backup.runtag
        for here in prunings
        for backup in here.going
        if here.lacking(backup)
        and not any(
            each.holds(backup.runtag) and backup.runtag not in going.get(each.name, ())
            for each in here.deliveries
        )
    }


def _from(each: Pruning) -> str:
    return HERE if each.name == HERE else f"from {each.name}"


def _staying(environment: Environment, prunings: list[Pruning]) -> set[str]:
    """Return the sets with a manifest that are kept somewhere, as far as locations answer."""
    found = {e.backup.runtag for one in prunings for e in one.verdicts if e.keep}
    pruned = {each.name for each in prunings if each.verdicts}
    storages: dict[str, tuple[Storage, str]] = {HERE: (environment.host, environment.backups)}
    storages |= {name: (storage, storage.root) for name, storage in environment.vaults.items()}
    for name, (storage, folder) in storages.items():
        if name not in pruned:
            with contextlib.suppress(StepFailed):
                found |= runtags_in(storage.listdir(folder))
    return found


def _write_down(environment: Environment, prunings: list[Pruning], request: PruneRequest) -> None:
    """Record what is gone for good, of the machines whose sets were judged.

    Applies to the present sets: what is made later counts again.
    """
    if not request.gone:
        return
    now = datetime.now(UTC)
    made: dict[str, list[datetime]] = {}
    for each in (backup for one in prunings for backup in one.sets):
        if each.manifest and (then := each.made()):
            made.setdefault(each.manifest.host, []).append(then)
    for host, times in sorted(made.items()):
        about = max((each for each in times if each <= now), default=now)
        environment.owner.add_gone(request.gone, host, about, now)


def _tell_return(
    environment: Environment, pruning: Pruning, here: Iterable[BackupSet], report: Report
) -> None:
    """Report which sets the next backup would deliver again, and what would prevent that.

    `here`: those that this command keeps here.
    """
    going = {each.runtag for each in pruning.going}
    vault = next((e for e in environment.settings.vaults if e.name == pruning.name), None)
    if vault is None or not going or not pruning.policy:
        return
    back = [each for each in here if each.runtag in going and each.state in DELIVERED]
    left = [each.backup for each in pruning.verdicts if each.keep]
    if vault.policy:
        verdicts = judge_each_host([*left, *back], vault.policy, datetime.now(UTC))
        stay = {each.backup.runtag for each in verdicts if each.keep}
        back = [each for each in back if each.runtag in stay]
    if back:
        several = len(back) > 1
        report.warn(
            f"  {', '.join(each.runtag for each in back)} {'are' if several else 'is'} here "
            f"still, so the next backup or `inv sync` copies {'them' if several else 'it'} back. "
            f"It would not with {policy_text(pruning.policy)} below [[vaults]] name = "
            f'"{vault.name}" in hosts.toml.'
        )


def _tell_lacking(pruning: Pruning, known: Known, report: Report) -> None:
    """Report what the newest good set of each machine lacks and an older, kept one has."""
    newest: dict[str, BackupSet] = {}
    for each in newest_first(pruning.sets):
        if each.manifest and each.state in GOOD:
            newest.setdefault("" if pruning.name == HERE else each.manifest.host, each)
    at = "" if pruning.name == HERE else pruning.name
    for each in newest.values():
        found = lacks_cured(lacks(each, pruning.sets, known.gone, here=not at), at)
        if found:
            report.write(f"  {each.runtag} is missing {found}")


def _choose(environment: Environment, at: str, policy: Policy | None) -> list[Pruning]:
    """Return the requested locations; raises UsageError for an unknown one."""
    stack = environment.settings.stack
    given = policy is not None
    here = Pruning(
        HERE, environment.host, environment.backups, policy or stack.policy, by_flags=given
    )
    vaults_named = {each.name: each for each in environment.settings.vaults}

    def pruning(name: str) -> Pruning:
        storage = environment.vaults[name]
        vault = vaults_named[name.partition("/")[0]]
        if vault.write_once:
            return Pruning(name, storage, storage.root, None, write_once=True)
        return Pruning(name, storage, storage.root, policy or vault.policy, by_flags=given)

    vaults = {name: pruning(name) for name in environment.vaults}
    if environment.knows(at):
        if given and pruning(at).write_once:
            raise Refused(f"{at}: {WRITE_ONCE}")
        return [pruning(at)]
    if at == EVERY_VAULT and not vaults:
        raise UsageError(f"--at {at}: hosts.toml has no vaults.")
    chosen = {
        HERE: [here],
        EVERY_VAULT: list(vaults.values()),
        EVERYWHERE: [here, *vaults.values()],
    }
    if at not in chosen:
        known = (*chosen, *vaults)
        raise UsageError(f"--at {at}: use one of {', '.join(known)}.{did_you_mean(at, known)}")
    return chosen[at]


@contextlib.contextmanager
def _noted(each: Pruning) -> Iterator[None]:
    """Record an error of a location, so that the others are processed."""
    try:
        yield
    except StepFailed as error:
        each.error = str(error)


def _show(each: Pruning, report: Report, *, dry_run: bool) -> None:
    """Print the decisions for a location, and what is left alone there."""
    if each.error:  # reported at the end
        return
    report.write(f"{each.name} ({each.folder}):")
    if each.policy is None:
        report.write(f"  {WRITE_ONCE if each.write_once else NO_POLICY}")
    if each.verdicts:
        now = datetime.now(UTC)
        report.table(
            ("runtag", "age", "state", "verdict", "why"),
            [
                (
                    verdict.backup.runtag,
                    age_text(verdict.backup.made(), now),
                    verdict.backup.state.value,
                    "keep" if verdict.keep else "remove",
                    verdict.why,
                )
                for verdict in each.verdicts
            ],
        )
    elif each.policy:
        report.write("  No backups found.")
    begun = ", ".join(sorted(each.begun))
    if begun and each.policy:
        would = "would also be" if dry_run else "is also"
        report.write(f"  The rest of an earlier removal {would} removed: {begun}")
    if each.strangers:
        shown = ", ".join(each.strangers[:STRANGERS_SHOWN])
        more = len(each.strangers) - STRANGERS_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        report.write(f"  Ignored, not the name of a backup: {shown}{rest}")


def _close(prunings: list[Pruning], report: Report, *, dry_run: bool, as_json: bool) -> ExitCode:
    """Report the outcome, and return the exit code."""
    if as_json:
        report.write_json([_plain(each, dry_run=dry_run) for each in prunings])
    else:
        for each in prunings:
            if each.policy and not each.error:
                sets = f"{each.count} of {len(each.verdicts)} sets"
                would = "would be" if dry_run else "were" if each.count != 1 else "was"
                report.write(f"{each.name}: {sets} {would} removed.")
        if dry_run:
            report.write("Nothing was changed.")
    for each in prunings:
        if each.error:
            report.fail(f"{each.name} was not pruned completely: {each.error}")
    return ExitCode.FAILED if any(each.error for each in prunings) else ExitCode.GOOD


def _plain(each: Pruning, *, dry_run: bool) -> dict[str, object]:
    return {
        "place": each.name,
        "folder": each.folder,
        "policy": each.policy is not None,
        "dry_run": dry_run,
        "error": each.error or None,
        "sets": [
            {
                "runtag": verdict.backup.runtag,
                "made": made.isoformat() if (made := verdict.backup.made()) else None,
                "state": verdict.backup.state.value,
                "pinned": verdict.backup.pinned,
                "keep": verdict.keep,
                "why": verdict.why,
            }
            for verdict in each.verdicts
        ],
        "left_alone": list(each.strangers),
    }
