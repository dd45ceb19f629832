"""The facts of a stack as numbers: Prometheus' text format, and InfluxDB's line protocol. Pure.

Names follow https://prometheus.io/docs/practices/naming/. No label names the machine: Prometheus
adds `instance`. InfluxDB adds nothing, so each point there has the tag `host`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from ..core.dataclass import dataclass
from .run_event import Outcome
from .stack_facts import StackFacts

PREFIX = "iotstack_backup_"
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge, and its samples."""

    name: str
    """Without the prefix."""
    help: str
    samples: tuple[tuple[Labels, float], ...]


def prometheus_text(facts: StackFacts) -> str:
    """Return the metrics in Prometheus' text format 0.0.4."""
    lines = []
    for each in metrics_of(facts):
        name = PREFIX + each.name
        lines += [f"# HELP {name} {each.help}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labelled(labels)} {_number(value)}" for labels, value in each.samples]
    return "".join(f"{line}\n" for line in lines)


def metrics_of(facts: StackFacts) -> Iterator[Metric]:
    """Yield each metric that has a sample."""
    for each in _metrics(facts):
        if each.samples:
            yield each


def _metrics(facts: StackFacts) -> Iterator[Metric]:
    yield from _of_places(facts)
    yield from _of_newest(facts)
    yield from _of_runs(facts)
    kinds = {"failure": True, "warning": False}
    counts = {
        kind: sum(each.is_failure is is_failure for each in facts.problems)
        for kind, is_failure in kinds.items()
    }
    yield Metric(
        "problems",
        "What is wrong now, or needs a look.",
        tuple(({"severity": kind}, count) for kind, count in counts.items()),
    )
    yield _moment(
        "rehearsed_timestamp_seconds",
        "When a rehearsed restore last succeeded.",
        {"": facts.rehearsed},
    )
    yield _moment(
        "next_run_timestamp_seconds",
        "When the schedule starts the next backup.",
        {"": facts.next_run},
    )
    yield _moment(
        "observed_timestamp_seconds", "When these metrics were gathered.", {"": facts.now}
    )


def _of_places(facts: StackFacts) -> Iterator[Metric]:
    known = [each for each in facts.places if not each.trouble]
    yield Metric(
        "vault_readable",
        "Whether the backups in a vault could be read; here is the folder beside the stack.",
        tuple(({"vault": each.name}, not each.trouble) for each in facts.places),
    )
    yield _moment(
        "newest_timestamp_seconds",
        "When the newest good backup in a vault was made.",
        {each.name: each.newest for each in known},
    )
    yield _moment(
        "verified_timestamp_seconds",
        "When a backup in a vault was last read again and found good.",
        {each.name: each.verified for each in known},
    )
    yield Metric(
        "sets",
        "How many backups of this machine are in a vault.",
        tuple(({"vault": each.name}, each.sets) for each in known),
    )
    yield Metric(
        "stored_bytes",
        "The size of all backups in a vault.",
        tuple(({"vault": each.name}, each.size_bytes) for each in known),
    )
    yield Metric(
        "free_bytes",
        "The free space of a vault, if it tells.",
        tuple(
            ({"vault": each.name}, each.free_bytes)
            for each in known
            if each.free_bytes is not None
        ),
    )


def _of_newest(facts: StackFacts) -> Iterator[Metric]:
    newest = facts.newest
    parts = newest.parts.items() if newest else ()
    yield Metric(
        "part_bytes",
        "The size of each part of the newest good backup.",
        tuple(({"part": kind}, size) for kind, size in parts),
    )
    yield Metric(
        "duration_seconds",
        "How long the newest good backup took.",
        (({}, newest.seconds),) if newest else (),
    )


def _of_runs(facts: StackFacts) -> Iterator[Metric]:
    runs = facts.runs
    yield Metric(
        "run_success",
        "Whether the last run of a task succeeded, warnings or not.",
        tuple(({"task": task}, each.outcome is not Outcome.FAILED) for task, each in runs.items()),
    )
    yield Metric(
        "run_exit_code",
        "The exit code of the last run of a task; -9 if it was killed.",
        tuple(({"task": task}, each.exit_code) for task, each in runs.items()),
    )
    yield Metric(
        "run_duration_seconds",
        "How long the last run of a task took.",
        tuple(
            ({"task": task}, (each.ended - each.began).total_seconds())
            for task, each in runs.items()
        ),
    )
    yield Metric(
        "run_timestamp_seconds",
        "When the last run of a task ended.",
        tuple(({"task": task}, each.ended.timestamp()) for task, each in runs.items()),
    )


def _moment(name: str, text: str, moments: Mapping[str, datetime | None]) -> Metric:
    """Return a metric of times by vault; '' for one without a label."""
    return Metric(
        name,
        text,
        tuple(
            ({"vault": vault} if vault else {}, moment.timestamp())
            for vault, moment in moments.items()
            if moment
        ),
    )


def _labelled(labels: Labels) -> str:
    if not labels:
        return ""
    texts = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{text}"' for name, text in texts.items()) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def line_protocol(facts: StackFacts, retention: timedelta) -> str:
    """Return the points for InfluxDB, a line each, with times in seconds.

    A backup, or a run, is the same point each time. What is older than the retention is left out:
    InfluxDB refuses it.
    """
    oldest = facts.now - retention + timedelta(hours=1)
    return "".join(
        f"{line}\n" for at, line in _points(facts) if oldest < at <= facts.now + timedelta(days=1)
    )


def _points(facts: StackFacts) -> Iterator[tuple[datetime, str]]:
    host = {"host": facts.host}
    for each in facts.sets:
        numbers: dict[str, float] = {"size_bytes": each.size_bytes}
        numbers |= {"duration_seconds": float(each.seconds)}
        yield each.began, _point("backup", host, numbers, each.began)
        for kind, size in each.parts.items():
            tags = {**host, "part": kind}
            yield each.began, _point("part", tags, {"size_bytes": size}, each.began)
    for place in facts.places:
        numbers = {"readable": int(not place.trouble)}
        if not place.trouble:
            numbers |= {"sets": place.sets, "stored_bytes": place.size_bytes}
            numbers |= _seconds({"newest": place.newest, "verified": place.verified})
            if place.newest:
                numbers["age_seconds"] = int((facts.now - place.newest).total_seconds())
            if place.free_bytes is not None:
                numbers["free_bytes"] = place.free_bytes
        yield facts.now, _point("vault", {**host, "vault": place.name}, numbers, facts.now)
    for task, run in facts.runs.items():
        took = (run.ended - run.began).total_seconds()
        numbers = {"exit_code": int(run.exit_code), "duration_seconds": float(took)}
        numbers |= {"success": int(run.outcome is not Outcome.FAILED)}
        yield run.ended, _point("run", {**host, "task": task}, numbers, run.ended)
    failures = sum(each.is_failure for each in facts.problems)
    numbers = {"failures": failures, "warnings": len(facts.problems) - failures}
    numbers |= _seconds({"rehearsed": facts.rehearsed, "next_run": facts.next_run})
    yield facts.now, _point("state", host, numbers, facts.now)


def _seconds(moments: Mapping[str, datetime | None]) -> dict[str, float]:
    """Return the moments that are known, as seconds since 1970."""
    return {
        f"{name}_timestamp_seconds": int(moment.timestamp())
        for name, moment in moments.items()
        if moment
    }


def _point(measurement: str, tags: Labels, numbers: Mapping[str, float], at: datetime) -> str:
    """Return a line. A whole number stays one: a field never changes its type in InfluxDB."""
    told = "".join(f",{name}={_tag(value)}" for name, value in tags.items() if _tag(value))
    fields = ",".join(
        f"{name}={value!r}{'i' if isinstance(value, int) else ''}"
        for name, value in numbers.items()
    )
    return f"{measurement}{told} {fields} {int(at.timestamp())}"


def _tag(value: str) -> str:
    """Return a tag's value; a backslash at its end would escape what follows."""
    line = " ".join(value.split()).rstrip("\\")
    return line.replace(",", r"\,").replace("=", r"\=").replace(" ", r"\ ")
