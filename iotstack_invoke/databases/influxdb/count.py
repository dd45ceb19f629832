"""What an InfluxDB 1.x holds, in numbers: databases, series, values of each measurement.

The server that is queried has no clients, so two counts of the same data are equal. File sizes
verify a load; counts are for people, and verify it a second time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from ...core import processes
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostStep, StepContext
from ...hosts.base import ANY_EXIT, Command, Host
from .meta import INTERNAL
from .server import Server, quoted, server_catalogue

SETTLE_LIMIT_S = 60.0
"""How long queries may fail after a load: "shard is disabled" was seen for 1 s."""
COUNT_LIMIT_S = 120.0
"""Time limit for counting all values: 2 million values a second on a PC, a tenth on a Pi."""
ASK_PAUSE_S = 0.3
COUNT = "SELECT count(*) FROM"
UNSETTLED = ("shard is disabled", "engine is closed")


@dataclass(frozen=True, slots=True)
class Count:
    """What a server held when it was queried.

    `values` by database, policy and measurement: field values, as count(*) counts them. None if
    they were not counted.
    """

    databases: tuple[str, ...]
    series: int
    """InfluxDB's estimate; exact up to some thousands."""
    values: Mapping[tuple[str, str, str], int] | None
    expiring: frozenset[tuple[str, str]] = frozenset()
    """Databases and policies whose old values InfluxDB removes by itself."""

    @property
    def points(self) -> int | None:
        """The number of all values together; None if they were not counted."""
        return None if self.values is None else sum(self.values.values())


@dataclass(slots=True)
class Tally:
    """Carries a count from the step that makes it to the step that compares or reports it."""

    count: Count | None = field(default=None)


@dataclass(frozen=True, slots=True)
class CountInflux(HostStep):
    """Count what a server holds. Changes nothing."""

    server: Server
    into: Tally
    values: bool = True
    """Count the values as well, unless that takes too long."""
    like: Tally | None = None
    """An earlier count: if it has no values, none are counted now."""

    def commands(self) -> tuple[str, ...]:
        """Return the queries."""
        asked = ['SHOW SERIES CARDINALITY ON "…"']
        asked += [f'{COUNT} "…"."…"./.*/'] if self.values else []
        return tuple(str(self._command(text)) for text in asked)

    def _command(self, text: str, limit_s: float = SETTLE_LIMIT_S) -> Command:
        words = ("exec", self.server.container, "influx", "-format", "json", "-execute", text)
        return Command((*self.access.docker, *words), ANY_EXIT, limit_s)

    def do(self, context: StepContext) -> None:
        """Query each database; skip counting values, with a message, if that takes too long."""
        host = self.access.host(context)
        catalogue = server_catalogue(host, self.server, self.access.as_root)
        mine = [each for each in catalogue.databases if each.name != INTERNAL]
        context.status("counting series")
        series = 0
        for each in mine:
            answers = self._ask(host, f"SHOW SERIES CARDINALITY ON {quoted(each.name)}")
            series += sum(int(number) for _, number in answers)
        earlier = self.like.count if self.like else None
        wanted = self.values and not (earlier and earlier.values is None)
        policies = [(each.name, policy.name) for each in mine for policy in each.policies]
        self.into.count = Count(
            databases=catalogue.names,
            series=series,
            values=self._count_values(context, host, policies) if wanted else None,
            expiring=frozenset(
                (each.name, policy.name)
                for each in mine
                for policy in each.policies
                if policy.duration_ns
            ),
        )

    def _count_values(
        self, context: StepContext, host: Host, policies: list[tuple[str, str]]
    ) -> Mapping[tuple[str, str, str], int] | None:
        deadline = time.monotonic() + COUNT_LIMIT_S
        found: dict[tuple[str, str, str], int] = {}
        for database, policy in policies:
            context.status(f"counting the values of {database}")
            text = f"{COUNT} {quoted(database)}.{quoted(policy)}./.*/"
            try:
                answers = list(self._ask(host, text, deadline - time.monotonic()))
            except StepFailed:
                if time.monotonic() < deadline:
                    raise
                context.status(
                    f"Values were not counted: this takes more than {COUNT_LIMIT_S:g} s. The "
                    "load is verified by file sizes."
                )
                return None
            for name, number in answers:
                key = (database, policy, name)
                found[key] = found.get(key, 0) + int(number)
        return found

    def _ask(
        self, host: Host, text: str, limit_s: float = SETTLE_LIMIT_S
    ) -> Iterator[tuple[str, int]]:
        """Return each number of a query's result, with the name of its measurement."""
        settled = time.monotonic() + SETTLE_LIMIT_S
        while True:
            told = host.run(self._command(text, max(limit_s, 1.0)))
            errors, numbers = _read_answer(told.out)
            if told.exit_code or any(e.startswith("ERR") for e in told.err.splitlines()):
                errors.append(told.last_line)
            if not errors:
                return iter(numbers)
            passing = any(word in errors[0] for word in UNSETTLED)
            if not passing or time.monotonic() > settled:
                raise StepFailed(f"InfluxDB does not answer `{text}`: {errors[0]}")
            processes.pause(ASK_PAUSE_S)


def _read_answer(text: str) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the errors in a JSON answer, and each number in it except times."""
    errors: list[str] = []
    numbers: list[tuple[str, int]] = []
    for content in _documents(text):
        results = content.get("results") or []
        errors += [each["error"] for each in (content, *results) if each.get("error")]
        for series in (one for each in results for one in each.get("series") or []):
            for row in series.get("values") or []:
                for column, value in zip(series["columns"], row, strict=True):
                    if column != "time" and isinstance(value, int):
                        numbers.append((series.get("name", ""), value))
    return errors, numbers


def _documents(text: str) -> Iterator[Mapping[str, Any]]:
    """Return each JSON document of a text; anything that is not JSON counts as an error."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        try:
            content, end = decoder.raw_decode(rest)
        except ValueError:
            yield {"error": rest.splitlines()[0]}
            return
        yield content
        rest = rest[end:].lstrip()


def compare_counts(before: Count, after: Count) -> list[str]:
    """Return what has fewer or more values after than before; one sentence each.

    If InfluxDB removes old values by itself, fewer is no difference.
    """
    found = []
    if sorted(before.databases) != sorted(after.databases):
        found.append(
            f"databases: {', '.join(before.databases) or 'none'} before, "
            f"{', '.join(after.databases) or 'none'} after"
        )
    if before.values is None or after.values is None:
        return found
    for key in sorted({*before.values, *after.values}):
        was, is_now = before.values.get(key, 0), after.values.get(key, 0)
        if was == is_now or (is_now < was and key[:2] in before.expiring):
            continue
        found.append(f"{'.'.join(key)}: {was:,} values before, {is_now:,} after")
    return found


@dataclass(frozen=True, slots=True)
class CompareCounts:
    """Check that a server holds after a load what was counted before it."""

    before: Tally
    after: Tally

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return ("compare the counts before and after",)

    def do(self, context: StepContext) -> None:  # noqa: ARG002
        """Raise StepFailed with the differences."""
        before, after = self.before.count, self.after.count
        differences = compare_counts(before, after) if before and after else []
        if differences:
            raise StepFailed(
                f"The contents of InfluxDB differ from before: {'; '.join(differences[:5])}."
            )
