"""What a restore fetches and unpacks before the switch, and what a later run may reuse.

A fetched archive is trusted by its hash. An unpacked folder is trusted by its mark alone
(stack/staged.py): a folder without a mark, or with other contents, is made again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ...backups.manifest import read_records, record_line
from ...core.errors import StepFailed
from ...core.stack_folders import RESTORE
from ...engine.steps import Record
from ...environment.stack_host import StackHost
from ...hosts.base import ANY_EXIT, PARTIAL, Command
from ...hosts.hashing import hash_command
from ...hosts.inspect import entries, read_text
from ...stack.staged import (
    MARK_ENDING,
    REMOVE_LIMIT_S,
    SET_MARK,
    clear_words,
    mark_of,
    measure,
    remove_words,
)

# Other users must not read it: it holds secrets of the whole stack, also in what restores keep.
_MAKE = 'umask 077; mkdir -p "$1" && chmod 0700 "$1" && { chmod 0700 "$2" || true; }'


class Stage:
    """The folders in which a set is staged on a target, and the records of their contents."""

    def __init__(self, target: StackHost, runtag: str, records: Mapping[str, Record]) -> None:
        self.target = target
        self.host = target.host
        self.folder = f"{target.folder}/{RESTORE}/{runtag}"
        self.apart = f"{target.folder}/volumes/.restore-{runtag}"
        """The folder for volumes that are on a file system of their own."""
        self._of_set = dict(records)
        self._records = dict(records)

    # Used by the engine

    def known(self) -> Mapping[str, Record]:
        """Return the records by output: of the set, and of completely staged data."""
        return self._records

    def add(self, record: Record) -> None:
        """Add a record; for a folder it is its mark, and the folder is renamed next."""
        if record.output.endswith("/"):
            with self.host.create(mark_of(self._path(record.output))) as stream:
                stream.write(record_line(record).encode())
        self._records[record.output] = record

    # Used by a restore

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings when the trusted folders were unpacked."""
        found = (each for name, each in self._records.items() if name not in self._of_set)
        return tuple(text for each in found for text in each.warnings)

    def begin(self, mark: str, names: Collection[str], *, apart: bool) -> None:
        """Make the folders; an earlier run's contents stay if complete and of this set.

        `mark` identifies the set, `names` are those of its archives.
        """
        if read_text(self.host, f"{self.folder}/{SET_MARK}") != mark:
            self.clear()
        above = posixpath.dirname(self.folder)
        self.host.run(Command(("sh", "-c", _MAKE, "sh", self.folder, above)))
        if apart:  # usually root's, and we rename what is staged there
            user = self.host.run(Command(("id", "-u"))).out.strip()
            words = ("install", "-d", "-m", "0700", "-o", user, "--", self.apart)
            self.host.run(Command((*self.target.as_root, *words)))
        self._remove_unknown(self.folder, {*names, *(f"{each}{PARTIAL}" for each in names)})
        self._remove_unknown(self.apart, ())
        with self.host.create(f"{self.folder}/{SET_MARK}") as stream:
            stream.write(mark.encode())
        self._remove_other_archives()

    def refuse_hollow(self, outputs: Iterable[str]) -> None:
        """Raise StepFailed if a staged folder lacks something of what was unpacked into it.

        Hours may have passed, and hooks run: a drive may be unmounted, or files removed.
        """
        for output in outputs:
            folder, record = self._path(output), self._records.get(output)
            try:
                members, _ = measure(self.host, folder, self.target.as_root)
            except StepFailed:
                members = 0
            if record is None or members < int(record.facts.get("members", 0)):
                raise StepFailed(
                    f"On {self.target.name} {folder} no longer has all unpacked data: it was "
                    "removed, or a drive was unmounted. The stack was not changed. Mount the "
                    "drive if there is one, then run this again."
                )

    def remove(self, folders: Iterable[str]) -> None:
        """Remove staged folders, their marks first."""
        paths = tuple(folders)
        if paths:
            for each in [e for e in self._records if self._path(e) in paths]:
                del self._records[each]
            words = remove_words(self.target.as_root, *paths)
            self.host.run(Command(words, timeout_s=REMOVE_LIMIT_S))

    def clear(self) -> None:
        """Remove all of it, first the marks of set and completeness.

        Raises StepFailed if that fails.
        """
        words = clear_words(self.target.as_root, self.folder, self.apart)
        self.host.run(Command(words, timeout_s=REMOVE_LIMIT_S))
        self._records = dict(self._of_set)

    # Checks

    def _path(self, output: str) -> str:
        return posixpath.join(self.target.folder, output.partition(":")[2]).rstrip("/")

    def _remove_unknown(self, folder: str, names: Collection[str]) -> None:
        """Remove everything except named files and complete folders with their marks."""
        root = self.target.as_root
        there = entries(self.host, folder, root)
        kept = {SET_MARK, *names}
        for name in (each for each, kind in there.items() if kind == "d" and each not in kept):
            mark = mark_of(f"{folder}/{name}")
            record = self._believed(f"{folder}/{name}", read_text(self.host, mark, root))
            if record:
                self._records[record.output] = record
                kept |= {name, posixpath.basename(mark)}
        unknown = [f"{folder}/{name}" for name in there if name not in kept]
        # Marks first: a partly removed folder then has none.
        unknown.sort(key=lambda path: not path.endswith(MARK_ENDING))
        self.remove(unknown)

    def _believed(self, folder: str, told: str) -> Record | None:
        """Return the record of a folder by its mark, None if they do not match."""
        for output, record in read_records([told]).items():
            if not output.endswith("/") or self._path(output) != folder:
                continue
            try:
                held = measure(self.host, folder, self.target.as_root)
            except StepFailed:
                continue
            if held == (record.facts.get("members"), record.facts.get("bytes")):
                return record
        return None

    def _remove_other_archives(self) -> None:
        """Remove fetched archives that differ from the manifest."""
        for record in self._of_set.values():
            path = self._path(record.output)
            if not record.output.startswith(f"pi:{RESTORE}/") or not self.host.stat([path]):
                continue
            told = self.host.run(replace(hash_command(path), accept=ANY_EXIT)).out
            if told.split(" ")[0] != record.sha256:
                self.host.remove([path])
