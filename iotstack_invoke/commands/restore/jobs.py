"""The jobs of one restore: which are needed by what is already staged, and how they run."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping

from ...backups.names import KINDS
from ...core.errors import NotFound
from ...core.stack_folders import BACKUPS
from ...engine.executor import Run, RunResult
from ...engine.journal import Journal
from ...engine.plan import Plan, decide, resolve
from ...engine.steps import File, Record
from ...environment.stack_host import StackHost
from ...hosts.base import FileFact, Storage
from ...reporting.report import CompositeReporter, Report
from ...settings.model import Options
from ...workflows.restore import RestoreFacts, restore_book, stages
from .request import Chosen, Source
from .stage import Stage


class Jobs:
    """Runs the jobs that stage a set on a target and put it in place."""

    def __init__(
        self, target: StackHost, source: Source, chosen: Chosen, stage: Stage, report: Report
    ) -> None:
        self.target = target
        self.source = source
        self.backup, self.manifest = chosen.backup, chosen.manifest
        self.runtag = self.backup.runtag
        self.stage = stage
        self.report = report
        self._archives: dict[File, FileFact] = {}
        """The files of the set when it was first listed."""

    def begin(self, facts: RestoreFacts) -> None:
        """Make the staging folder; what an earlier run fetched of this very set stays in it."""
        parts = self.manifest.made if self.manifest else ()
        hashes = {part.kind: part.sha256 for part in parts}
        files = self.backup.files.items()
        dated = {kind: (fact.size_bytes, int(fact.modified_s)) for kind, fact in files}
        mark = json.dumps(hashes or [self.source.name, dated], sort_keys=True)
        names = [f"{self.runtag}.{KINDS[kind]}" for kind in self.backup.files]
        with self.report.waiting("checking what was fetched and unpacked earlier"):
            self.stage.begin(mark, names, apart=facts.volumes_apart)

    def staging(self, facts: RestoreFacts) -> list[str]:
        """Return what is staged of a backup, as the names of outputs."""
        return [each.format(runtag=self.runtag) for each in stages({}, facts)]

    @property
    def _storages(self) -> dict[str, Storage]:
        return {"pi": self.target.host, "from": self.source.storage}

    def plan(self, targets: list[str], facts: RestoreFacts) -> Plan:
        """Return the jobs that make some outputs, without those already staged."""
        roots = {
            "pi": self.target.folder,
            "from": self.source.folder,
        }
        graph = resolve(restore_book(), targets, roots, facts)
        found = self._look(graph.files)
        known = self.stage.known()
        # A staged folder without a record is not complete: it is made again.
        files = {each: fact for each, fact in found.items() if _is_known(each, known)}
        return decide(graph, files, known)

    def _look(self, files: frozenset[File]) -> dict[File, FileFact]:
        """Return which files exist. Lists the set only once: its staged files are verified.

        So a vault that becomes unreachable afterwards stops nothing. Raises NotFound, naming them,
        if archives are gone since the set was chosen, StepFailed if a storage does not answer.
        """
        found = dict(self._archives)
        for role, storage in self._storages.items():
            asked = {e.absolute: e for e in files if e.role == role and e not in found}
            facts = storage.stat(asked) if asked else {}
            found |= {asked[path]: fact for path, fact in facts.items() if not fact.other}
        archives = {each for each in files if f"{each}".startswith(("from:", f"pi:{BACKUPS}/"))}
        if gone := sorted(posixpath.basename(each.path) for each in archives - found.keys()):
            self.source.storage.listdir(self.source.folder)  # raises if a vault became unreachable
            raise NotFound(
                f"{self.runtag} is no longer complete in {self.source.name}. Removed or renamed "
                f"after the restore began: {', '.join(gone)}. The stack was not changed. To see "
                "the backups: inv list"
            )
        self._archives = {each: found[each] for each in archives}
        return found

    def do(
        self,
        targets: list[str],
        facts: RestoreFacts,
        journal: Journal,
        reporter: CompositeReporter,
        options: Options,
    ) -> RunResult:
        """Make some outputs, and return the result."""
        plan = self.plan(targets, facts)
        self._clear_stale(plan)
        self.report.start_bars()
        try:
            return Run(
                plan,
                self._storages,
                store=self.stage,
                journal=journal,
                reporter=reporter,
                jobs_at_once=options.jobs,
            ).do()
        finally:
            self.report.stop_bars()

    def _clear_stale(self, plan: Plan) -> None:
        """Remove staged folders that are made again: a rename cannot replace a full folder."""
        jobs = (each.job for each in plan.to_run if not each.job.rule.transaction)
        self.stage.remove(each.absolute for job in jobs for each in job.outputs if each.is_folder)


def _is_known(file: File, known: Mapping[str, Record]) -> bool:
    return not file.is_folder or file.role != "pi" or str(file) in known
