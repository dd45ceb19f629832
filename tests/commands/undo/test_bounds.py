"""What a journal that is ours may have done all the same: what our own steps do, nothing else."""

import dataclasses
import json
import os

import folders
import pytest

from iotstack_invoke.backups.bundles import RECIPES
from iotstack_invoke.commands.undo import bounds
from iotstack_invoke.commands.undo.interrupted import Owing
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.engine.journal import WORDS, name_of, written
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.trust import Trust
from iotstack_invoke.parts.bundle import RecipeInUse
from iotstack_invoke.settings.model import read_settings
from iotstack_invoke.stack.compose_up import ComposeUp
from iotstack_invoke.stack.quiesce import Quiesce, stopped
from iotstack_invoke.workflows.restore import undoable

STAMP = "previous-t1-20261123T110000Z"
UNUSED = {
    *("alone", "before", "data", "exclusions", "folder", "fresh", "image", "inside"),
    *("labels", "left_out", "like", "logs", "members", "meta", "options", "patterns", "settings"),
    *("source", "staged", "vital", "volumes", "dumps", "archive", "recipe", "config"),
    *("databases", "kind", "known", "own_label", "waited_for"),
}
"""Fields on which no undo acts, or what an undo only compares."""


@pytest.fixture
def owing(tmp_path, monkeypatch):
    """A stack whose Docker knows one container, which mounts /srv/data and watches /etc."""
    tools = tmp_path / "tools"
    tools.mkdir()
    mounts = [
        {"Source": "/srv/data", "Destination": "/data", "RW": True},
        {"Source": "/etc/mosquitto", "Destination": "/mosquitto", "RW": False},
        {"Source": "/etc", "Destination": "/watched", "RW": False},
        {"Source": "/opt/dumps", "Destination": "/var/lib/influxdb/backup", "RW": True},
    ]
    one = [
        {
            "Id": "a",
            "Name": "/influxdb",
            "State": {"Running": True},
            "Image": "y",
            "Config": {"Image": "x"},
            "Mounts": mounts,
        }
    ]
    (tools / "told.json").write_text(json.dumps(one))
    (tools / "docker").write_text(
        f'#!/bin/sh\ncase "$1 $2" in "ps --all") echo a ;; inspect*) cat {tools}/told.json ;; esac\n'
    )
    (tools / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    stack = tmp_path / "IOTstack"
    for each in ("backups", "restore", "volumes/nodered"):
        (stack / each).mkdir(parents=True)
    host = LocalHost(str(stack))
    settings = read_settings({"stack": {"folder": str(stack), "sudo": False}}, "")
    return Owing(settings, host, str(stack), lambda: (), Trust(host, str(stack)))


def refused(owing, step, **fields):
    """Return why a journal with one step of ours is refused; '' where it is undone."""
    kind = next(each for each in undoable() if name_of(each) == step)
    told = {"host_role": "pi"}
    for each in dataclasses.fields(kind):
        if each.name not in {*WORDS, "access"} and each.default is dataclasses.MISSING:
            told[each.name] = [] if "tuple" in str(each.type) else ""
    told |= fields
    path = f"{owing.folder}/restore/.journal"
    line = json.dumps({"job": "pi:restored/t1", "step": step, "fields": told})
    checked = []
    journal = owing.journal(path)
    journal.undo = lambda: checked.append(True) or ()
    try:
        journal.recover([line])
    except StepFailed as error:
        assert not checked
        return str(error)
    return ""


HOSTILE = [
    ("SwapItem", {"live": "/etc", "aside": "/.previous-t1-20261123T110000Z/etc"}),
    ("SwapItem", {"live": "/etc/cron.d", "aside": "/etc/.previous-t1-20261123T110000Z/cron.d"}),
    ("SwapItem", {"live": "/home/pi", "aside": "/home/.previous-t1-20261123T110000Z/pi"}),
    ("SwapItem", {"live": "/home/pi/.ssh", "aside": "/home/pi/.previous-t1-20261123T110000Z/x"}),
    ("SwapItem", {"live": "/home/pi/a/b", "aside": f"/home/.{STAMP}/.databases/x"}),
    ("SwapItem", {"live": "/etc/a/b/c", "aside": f"/etc/.{STAMP}/.databases/x"}),
    ("SwapItem", {"live": "/srv/data/db/x", "aside": f"/mnt/.{STAMP}/.databases/x"}),
    ("SwapItem", {"live": "/srv/data/db/x", "aside": f"/.{STAMP}/.databases/x"}),
    ("SwapItem", {"live": "S/volumes/nodered", "aside": "/tmp/evil"}),
    ("SwapItem", {"live": "S/volumes/x", "aside": "/tmp/.previous-t1-20261123T110000Z/evil"}),
    ("SwapItem", {"live": "S/volumes/x", "aside": "S/restore/a/x", "used": "/etc/x"}),
    ("SwapItem", {"live": "S/backups", "aside": "S/restore/a/x"}),
    ("SwapItem", {"live": "S", "aside": "S/restore/a/x"}),
    ("SwapItem", {"live": "S/volumes/../../etc", "aside": "S/restore/a"}),
    ("SwapItem", {"live": "volumes/nodered", "aside": "S/restore/a"}),
    ("SwapItem", {"live": ["S/volumes/x"], "aside": "S/restore/a", "used": 3}),
    ("SwapEntries", {"live": "/usr/local", "aside": "/usr/local/.previous-t1-20261123T110000Z"}),
    ("PutAway", {"live": "/etc/passwd", "aside": "/etc/.previous-t1-20261123T110000Z/x"}),
    ("KeepLeftOut", {"live": "/etc", "aside": "/tmp/x", "patterns": ["*"]}),
    ("UseStage", {"folders": ["S/restore/t1", "S/backups"]}),
    ("UseStage", {"folders": ["S/volumes"]}),
    ("UseStage", {"folders": ["S/restore"]}),
    ("UseStage", {"folders": ["/"]}),
    ("UseStage", {"folders": ["S/backups/influxdb/db"]}),
    ("UseStage", {"folders": ["S/backups/influxdb/restore.t1"]}),
    ("UseStage", {"folders": ["S/volumes/influxdb/db/restore.t1"]}),
    ("UseStage", {"folders": ["S/backups/influxdb/db/restore.."]}),
    ("Unpack", {"folder": "S/backups/influxdb/db/2026-11-23_1100"}),
    ("MakeFolder", {"path": "S/volumes/nodered"}),
    ("MakeAround", {"path": "/etc", "live": "S/volumes/nodered"}),
    ("MakeAround", {"path": "S", "live": "S/volumes/nodered"}),
    ("MakeAround", {"path": "/home/pi", "live": "/home/pi/.ssh"}),
    ("GiveStack", {"path": "/etc"}),
    ("GiveStack", {"path": "S/backups"}),
    ("MakeAside", {"path": "/etc"}),
    ("CopyFolder", {"target": "/etc/ssh"}),
    ("CopySqlite", {"target": "S/backups"}),
    ("CopySqlite", {"target": "S/volumes/.copies"}),
    ("Unpack", {"folder": "S/services"}),
    ("MakeLink", {"path": "/lib", "leads_to": "/usr/lib"}),
    ("PutCatalogue", {"container": "influxdb", "previous": "/etc", "notes": "S/restore/a"}),
    ("PutCatalogue", {"container": "influxdb", "previous": "S/restore/a", "notes": "/etc/passwd"}),
    ("RunSqlAlone", {"alone": "a", "container": "b", "environment": "/etc/passwd"}),
    ("DumpInflux", {"container": "influxdb", "on_host": "S/backups", "inside": ""}),
    ("DumpInflux", {"container": "influxdb", "on_host": "S/volumes/nodered", "inside": ""}),
    ("DumpInflux", {"container": "influxdb", "on_host": "", "inside": "/var/lib/influxdb"}),
    ("DumpInflux2", {"container": "influxdb2", "on_host": "/home/pi", "inside": ""}),
    ("Quiesce", {"mark": "/etc/passwd", "container": "x", "recipe": ""}),
    ("Quiesce", {"mark": "S/backups/t1.manifest.json", "container": "x", "recipe": ""}),
    ("Quiesce", {"mark": "S/backups/.quiet-x", "container": "--time=0", "recipe": ""}),
    ("StopContainers", {"names": ["--signal=KILL", "x"]}),
    ("MakeVolume", {"name": "--force"}),
    ("RunAlone", {"alone": "a b", "container": "c"}),
    ("ComposeUp", {"folder": "/tmp", "files": ["/tmp/evil.yml"], "variables": ""}),
    ("ComposeUp", {"folder": "S", "files": ["S/docker-compose.yml"], "services": ["--volumes"]}),
]


def placed(owing, fields):
    return json.loads(json.dumps(fields).replace('"S', f'"{owing.folder}'))


@pytest.mark.parametrize(("step", "fields"), HOSTILE, ids=lambda each: str(each)[:60])
def test_what_no_step_of_ours_does_is_refused(owing, step, fields):
    """The whole journal, before anything of it is undone, and the message names the step."""
    why = refused(owing, step, **placed(owing, fields))
    assert f"{owing.folder}/restore/.journal" in why
    assert "Nothing was undone" in why or "this version does not know this step:" in why
    assert step in why


OURS = [
    ("UseStage", {"folders": ["S/backups/influxdb/db/restore.2026-11-23_1100"]}),  # the first ones
    ("Unpack", {"folder": "S/backups/influxdb/db/restore.2026-11-23_1100.partial"}),
    (
        "DumpInflux",  # as it was at first
        {
            "container": "influxdb",
            "on_host": "S/backups/influxdb/db/2026-11-23_1100",
            "inside": "/var/lib/influxdb/backup/2026-11-23_1100",
            "port": 8086,
            "address": "127.0.0.1",
        },
    ),
    ("SwapItem", {"live": "S/volumes/x", "aside": f"S/restore/{STAMP}/volumes/x"}),
    ("SwapItem", {"live": "S/volumes/x", "aside": f"S/volumes/.{STAMP}/volumes/x"}),
    ("SwapItem", {"live": "S/.env", "aside": f"S/restore/{STAMP}/.env"}),
    ("SwapItem", {"live": "S/scripts/own", "aside": f"S/restore/{STAMP}/included/scripts/own"}),
    ("SwapItem", {"live": "/opt/zigbee", "aside": f"S/restore/{STAMP}/outside/opt/zigbee"}),
    ("SwapItem", {"live": "/mnt/usb/media", "aside": f"/mnt/usb/.{STAMP}/media"}),
    ("SwapItem", {"live": "/etc/mosquitto", "aside": f"S/restore/{STAMP}/outside/etc/mosquitto"}),
    (
        "SwapItem",
        {
            "live": "/srv/data",
            "aside": f"/srv/.{STAMP}/data",
            "used": f"/srv/.{STAMP}-undone/data",
        },
    ),
    (
        "SwapItem",
        {
            "live": "/var/lib/docker/volumes/stack_x/_data",
            "aside": f"/var/lib/docker/volumes/stack_x/.{STAMP}/_data",
        },
    ),
    (
        "SwapItem",
        {
            "live": "/var/lib/docker/volumes/stack_x/_data/databases",
            "aside": f"/var/lib/docker/volumes/stack_x/.{STAMP}/.databases/mariadb",
            "used": f"/var/lib/docker/volumes/stack_x/.{STAMP}-undone/.databases/mariadb",
        },
    ),
    ("SwapItem", {"live": "/srv/data/db/x", "aside": f"/srv/.{STAMP}/.databases/db"}),
    (
        "SwapEntries",
        {"live": "/mnt/usb", "aside": f"/mnt/usb/.{STAMP}", "used": f"/mnt/usb/.{STAMP}-undone"},
    ),
    (
        "UseStage",
        {
            "folders": [
                "S/restore/t1/stack",
                f"S/restore/{STAMP}-undone",
                f"S/restore/{STAMP}.users",
            ]
        },
    ),
    ("UseStage", {"folders": ["S/volumes/.restore-t1/stack"]}),
    ("MakeFolder", {"path": "S/volumes/influxdb/.fresh"}),
    ("MakeAround", {"path": "S/volumes", "live": "S/volumes/nodered"}),
    ("MakeAround", {"path": "/mnt/usb", "live": "/mnt/usb/media"}),
    ("GiveStack", {"path": "S"}),
    ("MakeFolder", {"path": "S/restore/t1/databases/mariadb"}),
    ("CopyFolder", {"target": "/mnt/usb/.restore-media"}),
    ("CopyStays", {"target": "/mnt/usb/.fresh-wal"}),
    (
        "MoveAside",
        {
            "live": "S/volumes/mine",
            "aside": f"S/restore/{STAMP}/volumes/mine",
            "used": f"S/restore/{STAMP}-undone/volumes/mine",
        },
    ),
    ("CopyFolder", {"target": f"/mnt/usb/.{STAMP}-new"}),
    ("CopySqlite", {"target": "S/backups/.copies-outside"}),
    (
        "DumpInflux",
        {"on_host": "S/backups/influxdb/db/t1", "inside": "/var/lib/influxdb/backup/t1"},
    ),
    (
        "DumpInflux",
        {
            "container": "influxdb",
            "on_host": "/opt/dumps/t1",
            "inside": "/var/lib/influxdb/backup/t1",
        },
    ),
    ("DumpInflux", {"on_host": "", "inside": "/var/lib/influxdb/backup/t1"}),
    ("Quiesce", {"mark": "S/backups/.quiet-x", "container": "x", "recipe": ""}),
    (
        "ComposeUp",
        {
            "folder": "S",
            "files": ["S/docker-compose.yml"],
            "variables": "",
            "services": ["influxdb"],
        },
    ),
]


@pytest.mark.parametrize(("step", "fields"), OURS, ids=lambda each: str(each)[:60])
def test_what_our_steps_do_is_undone(owing, step, fields):
    """Of every place in which a restore, a reload or a backup acts."""
    assert refused(owing, step, **placed(owing, fields)) == ""


def test_what_needs_no_docker_is_undone_without_it(owing, tmp_path):
    """Each step that does need it says itself that it cannot be asked."""
    (tmp_path / "tools/docker").write_text("#!/bin/sh\necho 'no daemon' >&2\nexit 1\n")
    assert refused(owing, "MakeFolder", path=f"{owing.folder}/restore/t1") == ""


def test_links_on_the_way_are_followed(owing, tmp_path):
    """A link in restore/ leads nowhere else; volumes/ itself may be one, to a drive."""
    os.symlink("/etc", f"{owing.folder}/restore/t1")
    assert "which leads to /etc/ssh" in refused(
        owing, "Unpack", folder=f"{owing.folder}/restore/t1/ssh"
    )
    os.rmdir(f"{owing.folder}/volumes/nodered")
    os.rmdir(f"{owing.folder}/volumes")
    (tmp_path / "drive/volumes").mkdir(parents=True)
    os.symlink(tmp_path / "drive/volumes", f"{owing.folder}/volumes")
    moved = {"live": "S/volumes/x", "aside": f"S/volumes/.{STAMP}/volumes/x"}
    assert refused(owing, "SwapItem", **placed(owing, moved)) == ""


def test_a_compose_file_elsewhere_is_the_one_that_env_names(owing):
    """COMPOSE_FILE may lead out of the folder."""
    fields = {"folder": "/opt/compose", "files": ["/opt/compose/a.yml"], "variables": ""}
    fields["services"] = []
    assert "would act on /opt/compose" in refused(owing, "ComposeUp", **fields)
    with open(f"{owing.folder}/.env", "w") as stream:
        stream.write("COMPOSE_FILE=/opt/compose/a.yml\n")
    assert refused(owing, "ComposeUp", **fields) == ""


@pytest.mark.parametrize("kind", undoable(), ids=name_of)
def test_every_field_of_a_step_that_can_be_undone_is_judged(kind):
    """A new field is a word of the target's, a place, a name, or on the list of what is unused."""
    judged = {*WORDS, *bounds.NAMES, *bounds.FIELDS[name_of(kind)], *UNUSED}
    judged |= {"name", "ask", "awake", "enter", "leave", "advice"} if kind is Quiesce else set()
    texts = {e.name for e in dataclasses.fields(kind) if "str" in str(e.type)}
    assert texts - judged == set()


def journaled(kind):
    """Return the fields that a journal holds of a step."""
    values = {"str": "", "int": 0, "float": 0.0, "bool": False}
    asked = {e.name: values.get(e.type, ()) for e in dataclasses.fields(kind)}
    asked["access"] = HostAccess("pi")
    if "compose" in asked:
        asked["compose"] = ("docker", "compose", "--project-directory", "/s", "--file", "/s/a")
    return sorted(written(kind(**asked)))


def test_a_journal_of_an_earlier_version_is_understood():
    """Its steps and their fields have the names that they had: another version may have died."""
    with open(f"{folders.TESTS!s}/fixtures/journaled.json") as stream:
        before = json.load(stream)
    now = {name_of(kind): journaled(kind) for kind in undoable()}
    assert {step: sorted({*fields} & {*now[step]}) for step, fields in before.items()} == before


def test_no_word_of_a_program_is_written():
    """Neither those before a command, nor those of a service that is made quiet."""
    words = ("sudo", "-n", "docker", "compose", "--project-directory", "/s", "--file", "/s/a.yml")
    up = ComposeUp(HostAccess("pi", guard="/s/backups/.commands"), words, ("influxdb",))
    assert written(up) == {
        "host_role": "pi",
        "folder": "/s",
        "files": ("/s/a.yml",),
        "variables": "",
        "services": ("influxdb",),
    }
    quiet = stopped(HostAccess("pi"), "bolt", "/s/backups")
    assert written(quiet) == {
        "host_role": "pi",
        "mark": "/s/backups/.quiet-bolt",
        "container": "bolt",
        "recipe": "",
    }


def test_what_earlier_versions_wrote_becomes_the_same_step():
    """The words that they wrote are passed over; containers and paths are found in them."""
    guard, lock = "/s/backups/.commands", "/s/backups/.lock"
    words = ("docker-compose", "--project-directory", "/s/c", "--env-file", "/s/.env")
    words += ("--file", "/s/c/a.yml", "--file", "/s/c/b.yml")
    told = {"compose": words, "services": (), "guard": guard, "start": False}
    known = ComposeUp.of_earlier(told)
    revived = ComposeUp.revived(HostAccess("pi", guard=guard), **known, compose=words[:1])
    assert revived == ComposeUp(HostAccess("pi", guard=guard), words, ())
    assert {"host_role": "pi", **known} == written(revived)
    recipe = RecipeInUse("nextcloud", RECIPES["nextcloud"], "cloud", True, SqlServer("db", "x"))
    for quiet in (
        stopped(HostAccess("pi"), "bolt", "/s/backups"),
        recipe.quiet(HostAccess("pi"), "/s/backups"),
    ):
        told = dataclasses.asdict(quiet)
        for new in ("container", "recipe", "access"):
            del told[new]
        told |= {"advice": "rm -rf /", "enter": ("rm", "-rf", "/"), "ask": ("true",)}
        found = Quiesce.of_earlier(told)
        assert Quiesce.revived(HostAccess("pi"), **found, lock=lock) == quiet
