"""Facts of a stack with everything in them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from iotstack_invoke.monitoring.run_event import RunEvent
from iotstack_invoke.monitoring.stack_facts import PlaceFacts, Problem, SetFacts, StackFacts

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def made(now=NOW):
    """Return facts of three daily backups, the newest two hours old, at a moment."""
    newest = now - timedelta(hours=2)
    sets = tuple(
        SetFacts(f"t{days}", newest - days * DAY, 61.4 + days, {"general": 5_000_000 - days, "influx": 120_000})
        for days in (2, 1, 0)
    )  # fmt: skip
    return StackFacts(
        "pi",
        now,
        sets,
        (
            PlaceFacts("here", newest, 3, 15_360_000, 7_000_000_000, newest),
            PlaceFacts("nas", newest - DAY, 2, 10_000_000, 900_000_000_000, newest - DAY),
            PlaceFacts("cloud", newest, 1, 5_000_000),
            PlaceFacts("usb", trouble="Nothing is mounted there."),
        ),
        {
            "backup": RunEvent("backup", "pi", newest, newest + timedelta(seconds=70), 0),
            "prune": RunEvent("prune", "pi", newest, newest + timedelta(seconds=1.5), 3),
            "rehearse": RunEvent("rehearse", "pi", newest, newest + timedelta(minutes=5), 1),
        },
        newest - DAY,
        newest + DAY,
        (Problem("away usb", "The backups in usb cannot be read. Look.", is_failure=True), Problem("size influx", "It grew. Look.")),
        machine="0123456789abcdef",
    )  # fmt: skip


FACTS = made()
BARE = replace(FACTS, sets=(), places=(PlaceFacts("here"),), runs={}, rehearsed=None, next_run=None, problems=())  # fmt: skip
