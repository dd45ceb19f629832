"""The rules of a backup as a graph, and why one file would be made. Changes nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from datetime import datetime

from ...backups.bundles import RECIPES
from ...backups.names import KINDS, PARTS, split_set_name
from ...core.errors import RuleError, UsageError
from ...core.nearest import nearest
from ...core.runtag import runtag_time
from ...core.stack_folders import BACKUPS
from ...engine.plan import PlannedJob, bind, decide, resolve
from ...engine.steps import File
from ...environment.environment import Environment, RecordFile, stat_everywhere, unlike_copies
from ...reporting.report import GRAPH_FORMS, Report
from ...settings.model import Settings
from ...workflows.backup import BackupFacts, backup_book, log_targets, set_targets
from .facts import gather_facts


def show_graph(settings: Settings, report: Report, form: str) -> None:
    """Print the rules of a backup of this minute; examines nothing.

    Raises UsageError for an unknown format.
    """
    if form not in GRAPH_FORMS:
        raise UsageError(f"--format {form}: use one of {', '.join(GRAPH_FORMS)}.")
    environment = Environment.of(settings)
    vaults = tuple(environment.vaults)
    kinds = tuple(each for each in PARTS if each not in RECIPES)
    facts = BackupFacts("", "", settings.stack.folder, members=(), kinds=kinds)
    runtag = datetime.now().astimezone().strftime("%Y-%m-%d_%H%M")
    targets = (*set_targets(runtag, facts, vaults), *log_targets(runtag, vaults))
    report.graph(resolve(backup_book(vaults), targets, environment.roots, facts), form)


def show_why(settings: Settings, report: Report, target: str, *, as_json: bool = False) -> None:
    """Print how one file is made, from what, and whether it would be made now and why.

    `target` may lack its role: then it is the Pi's, below the stack's folder; or be an absolute
    path below that, or below a vault's. Raises RuleError if it does not exist and nothing would
    make it.
    """
    environment = Environment.of(settings)
    try:
        name = _with_role(target, environment.roots)
        wanted = bind(name, environment.roots)
        found = split_set_name(wanted.path.rpartition("/")[2])
        facts = gather_facts(environment.host, settings)
        vaults = tuple(environment.vaults)
        graph = resolve(backup_book(vaults), [name], environment.roots, facts)
        records = RecordFile(environment, found[0]) if found else None
        files, notes = stat_everywhere(graph.files, environment.storages)
        made = _made(wanted, found, facts)
        if wanted not in files and wanted.path not in made:
            raise RuleError(_not_made(wanted, found, made))
        known = records.known() if records else {}
        plan = decide(
            graph, files, known, unlike=unlike_copies(files, environment.storages, known)
        )
    finally:
        environment.close()
    for note in notes:
        report.warn(note)
    if as_json:
        exists, jobs = wanted in files, [*map(_row, plan.planned)]
        report.write_json({"file": wanted.absolute, "exists": exists, "jobs": jobs})
        return
    state = "is there" if wanted in files else "is missing"
    report.write(f"{wanted} ({wanted.absolute}) {state}.")
    report.plan(plan, also_settled=True)


def _row(planned: PlannedJob) -> Mapping[str, object]:
    """Return a job for programs, with why it would run: no reason, if it would not."""
    job = planned.job
    return {
        "rule": job.rule.name,
        "makes": [each.absolute for each in job.outputs],
        "from": [each.absolute for each in (*job.inputs, *job.ancient)],
        "reasons": [str(each) for each in planned.reasons],
        "commands": [line for step in job.steps for line in step.commands()],
    }


def _with_role(target: str, roots: Mapping[str, str]) -> str:
    """Return a file as `role:path`; raises RuleError for an absolute path below none of them."""
    if not target.startswith("/"):
        return target if ":" in target else f"pi:{target}"
    path = posixpath.normpath(target)
    for role, root in sorted(roots.items(), key=lambda each: len(each[1]), reverse=True):
        if path.startswith(f"{root.rstrip('/')}/"):
            return f"{role}:{posixpath.relpath(path, root)}"
    raise RuleError(f"{target} is neither in the stack's folder, {roots['pi']}, nor in a vault.")


def _made(wanted: File, found: tuple[str, str] | None, facts: BackupFacts) -> list[str]:
    """Return the files that a backup of this stack makes, with the runtag in a file's path.

    A word is a runtag if it gives a time, or if it is in the folder of backups.
    """
    is_here = wanted.role == "pi"
    kinds = (*facts.kinds, "manifest", "restore", *(() if is_here else ("log",)))
    folder = f"{BACKUPS}/" if is_here else ""
    parent, _, name = wanted.path.rpartition("/")
    runtag = found[0] if found else name.partition(".")[0]
    is_like_one = found or runtag_time(runtag) or parent == folder.rstrip("/")
    return [f"{folder}{runtag if runtag and is_like_one else 'RUNTAG'}.{KINDS[e]}" for e in kinds]


def _not_made(wanted: File, found: tuple[str, str] | None, made: Iterable[str]) -> str:
    """Return why nothing makes a file, with similarly named files that are made."""
    told = f"{wanted} ({wanted.absolute}) does not exist, and no backup of this stack creates it"
    names = {posixpath.basename(each) for each in made}
    if found and found[1] in PARTS and posixpath.basename(wanted.path) not in names:
        return (
            f"{told}: no running container has data for the {found[1]} part. How each container "
            "is saved: inv services"
        )
    role = "" if wanted.role == "pi" else f"{wanted.role}:"
    near = nearest(wanted.path, made, 1, 0.8) or made
    return f"{told}. It creates: {', '.join(f'{role}{each}' for each in near)}"
