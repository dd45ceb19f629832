"""One look at this machine's stack: tells of problems, and publishes its state."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from ...core.errors import ExitCode, Interrupted, IotstackError, ended
from ...core.units import read_duration
from ...environment.environment import Environment, open_environment
from ...monitoring.run_event import Outcome, RunEvent
from ...monitoring.run_records import MOST_MESSAGES, RunRecords
from ...monitoring.stack_facts import Problem, StackFacts
from ...monitoring.troubles import PROBLEM, explained
from ...reporting.report import Report
from ...settings.model import Settings
from .gather import observe
from .notifications import Notifications, notify_silent

MAX_AGE = "26h"
"""The age of the newest good backup from which it is overdue: a day, and some hours to spare."""
MONITOR = "monitor"
"""The task that its unit names if it fails."""
UNSAID = ("size ",)
"""The beginnings of keys whose end is not told: an odd size is usual after some days."""


def monitor(
    settings: Settings,
    max_age: str,
    report: Report,
    *,
    look_at_vaults: bool,
    as_json: bool = False,
) -> int:
    """Look once; return 0, or 3 if there are problems.

    Each problem is printed and sent once, and again if its text changes or it lasts a week. One
    that the last backup reported is neither printed nor sent, but counts. At a terminal and as
    JSON, all that go on are printed. Raises UsageError for an invalid `max_age`.
    """
    limit = read_duration(max_age)
    for key, _ in RunRecords(settings.stack.folder).all():
        notify_silent(settings, key, report)
    facts = observe_and_publish(settings, limit, look_at_vaults=look_at_vaults)
    problems = facts.problems
    if report.live and not as_json:
        for each in problems:
            report.warn(each.text)
        if not problems:
            report.tell("No problems.", style="green")
    tell_of(facts, settings, limit, report, printed=problems if report.live else ())
    now = datetime.now(UTC)
    looked = RunEvent(MONITOR, socket.gethostname(), now, now, ExitCode.GOOD)
    Notifications(settings, report).notify_recovery(looked)  # of its unit, if that failed
    if as_json:
        report.write_json([{**asdict(each), "title": each.title} for each in problems])
    return ExitCode.WARNINGS if problems else ExitCode.GOOD


def look(
    settings: Settings,
    limit: timedelta,
    report: Report,
    *,
    look_at_vaults: bool,
    more: tuple[Problem, ...] = (),
) -> tuple[Problem, ...]:
    """Tell of problems, and publish the state; return all problems, old ones too.

    `more`: problems that the caller prints.
    """
    facts = observe_and_publish(settings, limit, look_at_vaults=look_at_vaults, more=more)
    tell_of(facts, settings, limit, report, printed=more)
    return facts.problems


def observe_and_publish(
    settings: Settings,
    limit: timedelta,
    *,
    look_at_vaults: bool,
    more: tuple[Problem, ...] = (),
) -> StackFacts:
    """Publish the state of the stack, and return it; what could not be published is a problem."""
    with open_environment(settings) as environment:
        facts = observe(environment, limit, look_at_vaults=look_at_vaults)
        facts = replace(facts, problems=(*more, *facts.problems))
        failed = _publish(environment, facts)
        return replace(facts, problems=(*facts.problems, *failed))


def tell_of(
    facts: StackFacts,
    settings: Settings,
    limit: timedelta,
    report: Report,
    *,
    printed: tuple[Problem, ...] = (),
) -> None:
    """Tell of the problems that people do not know, and of those that are over."""
    notifications = Notifications(settings, report)
    for each in _untold(facts, limit):
        named = replace(each, key=f"{PROBLEM}{each.key}")
        if notifications.notify_problem(named, facts.host) and each not in printed:
            report.warn(each.text)
    still = frozenset(f"{PROBLEM}{each.key}" for each in facts.problems)
    notifications.notify_over(
        still, PROBLEM, facts.host, unsaid=tuple(PROBLEM + each for each in UNSAID)
    )


def causes_of(event: RunEvent, facts: StackFacts) -> tuple[Problem, ...]:
    """Return the vaults that are away as problems, if they explain all that a run told.

    Not of a run whose first messages were not kept.
    """
    if len(event.messages) >= MOST_MESSAGES:
        return ()
    away = {each.name: each.trouble for each in facts.places if each.trouble}
    keys = {f"away {name}" for name in explained(event.messages, away)}
    return tuple(each for each in facts.problems if each.key in keys)


def _untold(facts: StackFacts, limit: timedelta) -> Iterator[Problem]:
    """Yield the problems that no run has told.

    A vault that is off is in the backup's warnings, and a full disk is why a backup failed.
    """
    last = facts.runs.get("backup")
    is_recent = last is not None and facts.now - last.ended <= limit
    for each in facts.problems:
        if not (last and is_recent and _is_told_by(last, each.key)):
            yield each


def _is_told_by(run: RunEvent, key: str) -> bool:
    """Return whether the last backup has told of a problem."""
    kind, _, place = key.partition(" ")
    if run.outcome is Outcome.GOOD or kind not in ("away", "overdue", "full"):
        return False
    is_named = any(place in each for each in run.messages)
    return kind != "full" or run.outcome is Outcome.FAILED or is_named


def _publish(environment: Environment, facts: StackFacts) -> Iterator[Problem]:
    """Bring Home Assistant and the metrics up to date; yield what failed."""
    monitoring = environment.settings.monitoring
    if monitoring.mqtt:
        from .home_assistant import publish_state

        yield from _failing("mqtt", lambda: publish_state(environment, facts))
    if monitoring.metrics:
        from .metrics import write_metrics

        yield from _failing("metrics", lambda: write_metrics(environment, facts))


def _failing(key: str, publish: Callable[[], None]) -> Iterator[Problem]:
    try:
        publish()
    except Interrupted:
        raise
    except IotstackError as error:
        yield Problem(key, ended(error))
