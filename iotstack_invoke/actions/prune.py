"""Old backups are removed by a policy, here and in the vaults; each place by its own sets alone.

look and judge → show every verdict → remove. Not for: the policy itself (retention.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ..checks import HERE, Checks, failed_at
from ..children import signals_raised
from ..errors import ExitCode, Interrupted, StepFailed, UsageError
from ..manifest import RECORDS_ENDING
from ..report import Report, age_text
from ..retention import (
    POLICY_KEYS,
    Policy,
    Verdict,
    judge,
    judge_each_host,
    policy_mistakes,
    read_policy,
)
from ..sets import removals_in, strangers_in
from ..settings import Settings
from ..site import Site, finish_removals, remove_set, sets_in
from ..steps import FileFact, Place
from ..values import dataclass
from .old_data import remove_expired_here

EVERY_VAULT = "vault"
EVERYWHERE = "all"
NO_POLICY = "hosts.toml has no policy for this vault, so all that is there stays."
STRANGERS_SHOWN = 5


@dataclass(slots=True)
class Pruning:
    """One place, its policy, and what comes of it; without a policy all stays."""

    name: str
    place: Place
    folder: str
    policy: Policy | None
    verdicts: tuple[Verdict, ...] = ()
    begun: frozenset[str] = frozenset()
    """Sets that an earlier run left half removed."""
    strangers: tuple[str, ...] = ()
    error: str = ""

    def look(self, now: datetime, checks: Checks) -> None:
        """Judge the sets that are there, by what was verified as well; raises StepFailed."""
        names = self.place.names(self.folder)
        self.begun = removals_in(names)
        self.strangers = strangers_in(names)
        if self.policy:
            found = sets_in(self.place, self.folder, failed_at(checks, self.name))
            alone = self.name == HERE
            verdicts = (judge if alone else judge_each_host)(found, self.policy, now)
            self.verdicts = tuple(_owed(each, names) if alone else each for each in verdicts)

    def act(self) -> None:
        """Remove what is to go, the oldest first; raises StepFailed."""
        if not self.policy:
            return
        finish_removals(self.place, self.folder)
        for verdict in reversed(self.verdicts):
            if not verdict.keep:
                remove_set(self.place, self.folder, verdict.backup.runtag)

    @property
    def count(self) -> int:
        """How many sets go."""
        return sum(not verdict.keep for verdict in self.verdicts)


def _owed(verdict: Verdict, names: Mapping[str, FileFact]) -> Verdict:
    """Return a verdict on a set here that tells where a vault lacks it: its records are there."""
    if verdict.keep or f"{verdict.backup.runtag}.{RECORDS_ENDING}" not in names:
        return verdict
    return replace(verdict, why=f"{verdict.why}; a vault may lack it still")


def read_flags(flags: Mapping[str, str]) -> Policy | None:
    """Return the policy of the command line, None where it names none.

    Raises UsageError with all mistakes.
    """
    given: dict[str, int | str] = {}
    mistakes = []
    for key, text in flags.items():
        if text and POLICY_KEYS[key] is int and not (text.isascii() and text.isdecimal()):
            mistakes.append((key, "must be a whole number"))
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
    settings: Settings,
    at: str,
    flags: Mapping[str, str],
    report: Report,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Remove what the policy lets go, and return the exit code.

    A place that fails keeps no other from being pruned.
    """
    site = Site.of(settings)
    try:
        prunings = _choose(site, at, read_flags(flags))
        with signals_raised(), contextlib.nullcontext() if dry_run else site.held("prune"):
            for each in prunings:
                with _noted(each):
                    each.look(datetime.now(UTC), site.checks.newest())
                if not as_json:
                    _show(each, report, dry_run=dry_run)
            for each in prunings:
                with _noted(each):
                    if not (dry_run or each.error):
                        each.act()
            if any(each.name == HERE for each in prunings):
                tell = report.tell if as_json else report.write
                remove_expired_here(site, report, tell, dry_run=dry_run)
    except Interrupted as error:
        report.fail(
            f"Prune: {error}. A set that is half removed is listed no more; the next prune or "
            "backup removes what is left of it."
        )
        return error.exit_code
    finally:
        site.close()
    return _close(prunings, report, dry_run=dry_run, as_json=as_json)


def _choose(site: Site, at: str, policy: Policy | None) -> list[Pruning]:
    """Return the places that were asked for; raises UsageError for one that there is not."""
    stack = site.settings.stack
    here = Pruning(HERE, site.host, site.backups, policy or stack.policy)
    policies = {each.name: each.policy for each in site.settings.vaults}

    def pruning(name: str) -> Pruning:
        place = site.vaults[name]
        return Pruning(name, place, place.root, policy or policies[name.partition("/")[0]])

    vaults = {name: pruning(name) for name in site.vaults}
    if site.knows(at):
        return [pruning(at)]
    if at == EVERY_VAULT and not vaults:
        raise UsageError(f"--at {at}: hosts.toml names no vault.")
    chosen = {
        HERE: [here],
        EVERY_VAULT: list(vaults.values()),
        EVERYWHERE: [here, *vaults.values()],
    }
    if at not in chosen:
        raise UsageError(f"--at {at}: write one of {', '.join((*chosen, *vaults))}.")
    return chosen[at]


@contextlib.contextmanager
def _noted(each: Pruning) -> Iterator[None]:
    """Note what went wrong with a place, so that the others have their turn."""
    try:
        yield
    except StepFailed as error:
        each.error = str(error)


def _show(each: Pruning, report: Report, *, dry_run: bool) -> None:
    """Print the verdicts of a place, and what is left alone there."""
    report.write(f"{each.name} ({each.folder}):")
    if each.error:
        return
    if each.policy is None:
        report.write(f"  {NO_POLICY}")
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
        report.write("  There are no backups.")
    begun = ", ".join(sorted(each.begun))
    if begun and each.policy:
        would = "would be" if dry_run else "is"
        report.write(f"  What an earlier removal left {would} removed, too: {begun}")
    if each.strangers:
        shown = ", ".join(each.strangers[:STRANGERS_SHOWN])
        more = len(each.strangers) - STRANGERS_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        report.write(f"  Left alone, since no backup is named so: {shown}{rest}")


def _close(prunings: list[Pruning], report: Report, *, dry_run: bool, as_json: bool) -> ExitCode:
    """Say how it went, and return the exit code."""
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
            report.fail(f"{each.name} is not pruned to the end: {each.error}")
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
