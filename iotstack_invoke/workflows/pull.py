"""How a finished set is fetched from another machine: read it from top to bottom.

Each file is copied and verified as in any copy; the manifest comes last, so that a set with one is
complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from ..backups.manifest import RECORDS_ENDING, Manifest
from ..backups.names import KINDS, WILDCARDS
from ..backups.transfer import Claim, Send
from ..core.dataclass import dataclass
from ..engine.rules import Job, RuleBook, rule
from ..engine.steps import File, Step

FROM = "from"


@dataclass(frozen=True, slots=True)
class PullFacts:
    """The set to fetch: its manifest, and the names of its other files."""

    manifest: Manifest
    names: tuple[str, ...]

    @property
    def claim(self) -> str:
        """The mark of the set while it is copied: another run that fetches it may resume."""
        return hashlib.sha256(self.manifest.to_json().encode("utf-8", "replace")).hexdigest()[:32]


def pull_book(vault: str) -> RuleBook:
    """Return the rules that fetch one set into a vault."""

    def claim(job: Job) -> Step:
        facts: PullFacts = job.facts
        told = facts.manifest
        mark = File(vault, f"{told.runtag}.{RECORDS_ENDING}", job.output.root)
        began = frozenset({told.started_utc})
        return Claim(mark, told.runtag, told.host, facts.claim, began, replaces=False)

    def others(_wildcards: Mapping[str, str], facts: PullFacts) -> tuple[str, ...]:
        return (f"{FROM}:{{runtag}}.manifest.json", *(f"{vault}:{each}" for each in facts.names))

    @rule(
        f"{vault}:{{part}}",
        input=f"{FROM}:{{part}}",
        retries=2,
        resumes=True,
        title="fetch the {part} part",
    )
    def pulled(job: Job) -> Iterator[Step]:
        """Fetch an archive, and compare its hash with the manifest's."""
        yield claim(job)
        yield Send(job.input, job.output)

    @rule(
        f"{vault}:{{runtag}}.RESTORE.txt",
        input=f"{FROM}:{{runtag}}.RESTORE.txt",
        title="fetch RESTORE.txt",
    )
    def pulled_restore_text(job: Job) -> Iterator[Step]:
        """Fetch RESTORE.txt."""
        yield claim(job)
        yield Send(job.input, job.output)

    @rule(
        f"{vault}:{{runtag}}.backup-log.txt",
        input=f"{FROM}:{{runtag}}.backup-log.txt",
        title="fetch the log",
    )
    def pulled_log(job: Job) -> Iterator[Step]:
        """Fetch the log."""
        yield claim(job)
        yield Send(job.input, job.output)

    @rule(f"{vault}:{{runtag}}.manifest.json", input=others, retries=2, title="fetch the manifest")
    def pulled_manifest(job: Job) -> Iterator[Step]:
        """Fetch the manifest after everything else has arrived."""
        yield claim(job)
        yield Send(job.inputs[0], job.output)

    return RuleBook(pulled, pulled_restore_text, pulled_log, pulled_manifest, wildcards=WILDCARDS)


def pull_targets(vault: str, facts: PullFacts) -> tuple[str, ...]:
    """Return the files that exist when a set is fetched."""
    names = (*facts.names, f"{facts.manifest.runtag}.{KINDS['manifest']}")
    return tuple(f"{vault}:{each}" for each in names)
