"""Records in memory."""

from __future__ import annotations

from collections.abc import Mapping

from .steps import Record


class MemoryRecords:
    """Records in memory: data that a restore stages is found again by examining it."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = dict(records)

    def known(self) -> Mapping[str, Record]:
        """Return the records by output."""
        return self._records

    def add(self, record: Record) -> None:
        """Add a record."""
        self._records[record.output] = record
