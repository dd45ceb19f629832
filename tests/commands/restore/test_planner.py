"""Plans of restores are made of facts alone: those that are kept as data stay as they are."""

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from situations import SITUATIONS, TAG, made_of, plain, recorded

from iotstack_invoke.backups.manifest import read_manifest
from iotstack_invoke.backups.sets import BackupSet
from iotstack_invoke.commands.restore.facts import Candidates, Holding, TargetFacts
from iotstack_invoke.commands.restore.planner import Planner
from iotstack_invoke.commands.restore.request import RestoreRequest
from iotstack_invoke.commands.restore.selection import Selection
from iotstack_invoke.commands.restore.swaps import Swaps
from iotstack_invoke.core.errors import Refused
from iotstack_invoke.settings.model import read_settings
from iotstack_invoke.workflows.restore import RestoreFacts, SqlImport

GOLDEN = Path(__file__).parent / "golden"
OF_SERVERS = ("loads", "more", "unknown", "later", "stays_bytes")
"""What the servers themselves were asked: it goes into a plan unchanged."""

ASKED = ("sql_without_its_data",)
"""Situations in which it is refused by what is asked of the servers, and not by the planner."""


def kept(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def selection_of(said):
    """Return what was asked for, of which backup, before the target was asked."""
    request, backup = made_of(RestoreRequest, said["request"]), made_of(BackupSet, said["backup"])
    return Selection(
        request, backup, read_manifest(json.dumps(said["manifest"]), TAG, changed=True), ""
    )


def planner_of(said):
    """Return the planner of what was recorded."""
    settings, only = read_settings(tomllib.loads(said["settings"]), ""), selection_of(said)
    return Planner(
        made_of(TargetFacts, said["facts"]),
        only.request,
        settings,
        only.backup,
        only.manifest,
        said["in_place"],
        frozenset(said["users"]),
    ).decided()


def planned(said):
    """Return the plan that is made of what was recorded; raises Refused."""
    if "facts" not in said:  # refused before the target was asked
        selection_of(said).refuse_unknown(set)
    planner = planner_of(said)
    only, swaps = planner.selection, Swaps(planner)
    only.refuse_unknown(lambda: {each.container.name for each in planner.here.containers})
    planner.refuse_bare()
    asked, held = made_of(Candidates, said["candidates"]), made_of(Holding, said["holding"])
    facts = planner.plan(tuple(said["kinds"]), asked, planner.settings.influx.limit_s)
    items = swaps.items(facts, held)
    wanted = [*only.named(items), *swaps.included_items(facts, held)]
    facts = replace(facts, loads=made_of(tuple[SqlImport, ...], said["loads"]))
    chosen = [each for each in wanted if each.live in said["chosen"]]
    only.refuse_absent([*items, *wanted], facts.loads)
    facts = swaps.with_recipes(swaps.with_items(facts, held, items, chosen), held)
    facts = swaps.with_what_lies(facts, said["there"])
    was = made_of(RestoreFacts, said["plan"])
    return replace(facts, **{name: getattr(was, name) for name in OF_SERVERS})


@pytest.mark.parametrize("name", [each for each in SITUATIONS if each not in ASKED])
def test_a_plan_is_made_of_facts_as_it_was(name):
    """What is swapped, stopped, loaded and kept; what is refused is told in the same words.

    To renew what is kept, and look at what changed: RENEW=1 pytest tests/commands/restore/test_planner.py; git diff
    """
    said = kept(name)
    if "refused" not in said:
        assert plain(planned(said)) == said["plan"]
    else:
        with pytest.raises(Refused) as told:
            planned(said)
        assert str(told.value) == said["refused"]


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_a_plan_was_made_of_is_what_a_target_is_asked(name, little_stack, monkeypatch):
    """The plan of a real target in that situation is the one that is kept."""
    monkeypatch.setenv("PATH", little_stack.environment["PATH"])
    found = recorded(little_stack, name)
    if os.environ.get("RENEW"):
        text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=True)
        (GOLDEN / f"{name}.json").write_text(f"{text}\n")
    was = kept(name)
    assert (found.get("plan"), found.get("refused")) == (was.get("plan"), was.get("refused"))
