"""The rules of a backup as a picture, and why one file would be made. Changes nothing."""

from __future__ import annotations

from datetime import datetime

from ..errors import UsageError
from ..plan import bind, decide, resolve
from ..report import GRAPH_FORMS, Report
from ..rulebooks.backup import BackupFacts, backup_book, log_targets, set_targets
from ..rules import PARTS, split_set_name
from ..services.recipe import RECIPES
from ..settings import Settings
from ..site import RecordFile, Site, look_everywhere, unlike_copies
from .look import look_at_stack


def show_graph(settings: Settings, report: Report, form: str) -> None:
    """Print the rules of a backup of this minute; looks at nothing.

    Raises UsageError for a form that there is not.
    """
    if form not in GRAPH_FORMS:
        raise UsageError(f"--format {form}: there are {', '.join(GRAPH_FORMS)}.")
    site = Site.of(settings)
    vaults = tuple(site.vaults)
    kinds = tuple(each for each in PARTS if each not in RECIPES)
    facts = BackupFacts("", "", settings.stack.folder, members=(), kinds=kinds)
    runtag = datetime.now().astimezone().strftime("%Y-%m-%d_%H%M")
    targets = (*set_targets(runtag, facts, vaults), *log_targets(runtag, vaults))
    report.graph(resolve(backup_book(vaults), targets, site.roots, facts), form)


def show_why(settings: Settings, report: Report, target: str) -> None:
    """Print how one file is made, from what, and whether it would be made now and why.

    `target` may lack its role: then it is the Pi's. Raises RuleError where no rule makes it.
    """
    site = Site.of(settings)
    try:
        name = target if ":" in target else f"pi:{target}"
        wanted = bind(name, site.roots)
        found = split_set_name(wanted.path.rpartition("/")[2])
        facts = look_at_stack(site.host, settings)
        vaults = tuple(site.vaults)
        graph = resolve(backup_book(vaults), [name], site.roots, facts)
        records = RecordFile(site, found[0]) if found else None
        files, notes = look_everywhere(graph.files, site.places)
        known = records.known() if records else {}
        plan = decide(graph, files, known, unlike=unlike_copies(files, site.places, known))
    finally:
        site.close()
    for note in notes:
        report.warn(note)
    state = "is there" if wanted in files else "is not there"
    report.write(f"{wanted} ({wanted.absolute}) {state}.")
    report.plan(plan, also_settled=True)
