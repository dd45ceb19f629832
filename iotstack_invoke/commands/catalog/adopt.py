"""Archives without a manifest are adopted: read to their end, reported once, and recorded."""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime

from ...backups.verifications import HERE, Checks, in_places
from ...core.errors import StepFailed
from ...environment.environment import Environment
from ...reporting.report import Report, size_text
from .copies import copies_at
from .verify import bare_advice, verify_copy


def adopt(
    environment: Environment, at: str, runtags: Container[str], checks: Checks, report: Report
) -> frozenset[str]:
    """Read sets without a manifest in a location, and return the complete ones: they are adopted.

    Also those that lost it, as their texts show: for them only the reading is recorded.
    """
    adopted = set()
    for copy in copies_at(environment, at, checks):
        if copy.runtag not in runtags:
            continue
        size = size_text(copy.backup.size_bytes)
        report.tell(f"reading {copy.runtag} {in_places(at)} ({size}), to adopt it")
        try:
            verified = verify_copy(copy).as_adopted
        except StepFailed as error:
            report.fail(f"{copy.runtag} {in_places(at)} was not adopted, so it stays: {error}")
            continue
        check = verified.check
        if (
            at != HERE or not environment.far
        ):  # another machine keeps its own record of verifications
            environment.checks.add(check)
        if not check.good:
            why = " ".join(check.problems)
            cure = bare_advice(copy, can_be_read=False)
            report.fail(
                f"{copy.runtag} {in_places(at)} was not adopted, so it stays: {why} {cure}"
            )
            continue
        environment.owner.add_adopted(at, copy.backup, datetime.now(UTC))
        adopted.add(copy.runtag)
        report.write(
            f"{copy.runtag} {in_places(at)} was adopted: it has no manifest, but can be read "
            "completely. The policy may now remove it."
        )
    return frozenset(adopted)
