"""What the plans of a stack with one of everything print, command by command.

A digest of the printed commands decides whether a part is made again (engine/plan.py): one that
changes without need makes every interrupted backup begin again after an update.
"""

import sys
from dataclasses import replace

import folders
import pytest

from iotstack_invoke.backups.bundles import RECIPES
from iotstack_invoke.core import gzip_streams
from iotstack_invoke.databases.influxdb.dump import InfluxFacts
from iotstack_invoke.databases.influxdb.server import Server
from iotstack_invoke.databases.influxdb2.dump import Influx2Facts
from iotstack_invoke.databases.inventory import Held
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.engine.plan import resolve
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.parts.bundle import RecipeInUse
from iotstack_invoke.stack.cold_copy import AtRest
from iotstack_invoke.stack.stack_holdings import Outside
from iotstack_invoke.workflows.backup import BackupFacts, backup_book
from iotstack_invoke.workflows.rehearse import (
    RehearsalFacts,
    rehearsal_book,
    rehearsal_targets,
)
from iotstack_invoke.workflows.reload import ReloadFacts, reload_book
from iotstack_invoke.workflows.restore import (
    Around,
    EmptyVolume,
    Filling,
    Item,
    OutsideItem,
    RestoreFacts,
    SqlImport,
    restore_book,
    undoable,
)

S = "/home/pi/IOTstack"
PREVIOUS = f"{S}/restore/previous-t1-20261123T110000Z"
ROOTS = {"pi": S, "from": "/mnt/vault"}
SUDO = ("sudo", "-n")
ACCESS = HostAccess("pi", SUDO, (*SUDO, "docker"), f"{S}/backups/.commands.lock")
HERE = {
    sys.executable: "PYTHON",
    str(folders.CHECKOUT): "CHECKOUT",
    f"| {gzip_streams.PROGRAM} -": "| gzip -",
}
MARIA = SqlServer(
    "mariadb", "mariadb", f"{S}/volumes/mariadb/config/databases", "/config/databases"
)
POSTGRES = SqlServer(
    "postgres", "postgres", f"{S}/volumes/postgres/data", "/var/lib/postgresql/data"
)
NEXTCLOUD = SqlServer("nextcloud_db", "mariadb", f"{S}/volumes/nextcloud/db", "/config/databases")


def backup():
    recipes = tuple(
        RecipeInUse(name, RECIPES[name], name, True, NEXTCLOUD, ("data/x",)) for name in RECIPES
    )
    facts = BackupFacts(
        host="pi",
        program="iotstack-invoke",
        folder=S,
        members=("./docker-compose.yml", "./services", "./volumes"),
        kinds=("general", "influx", "influxdb2", "mariadb", "postgres", *RECIPES, "outside"),
        as_root=SUDO,
        exclusions=("volumes/x/*",),
        influx=InfluxFacts(
            "influxdb", "1.8", f"{S}/backups/influxdb/db", f"{S}/volumes/influxdb/data"
        ),
        influx2=Influx2Facts("influxdb2", "2.7", f"{S}/volumes/influxdb2/data", ""),
        servers=(MARIA, POSTGRES),
        recipes=recipes,
        at_rest=(AtRest(("mosquitto",), ("volumes/mosquitto",)),),
        linked=("docker-compose.yml",),
        outside=(Outside("/srv/data", volume="data"),),
    )
    return backup_book(()), ["pi:backups/t1.manifest.json"], facts


def sql_import(server, staged, **more):
    name = server.container
    return SqlImport(
        *(server, staged, f"{S}/volumes/{name}/.fresh"),
        *(f"{PREVIOUS}/parts/{name}", f"{PREVIOUS}-undone/parts/{name}"),
        **more,
    )


def item(name, **more):
    staged = f"{S}/restore/t1/stack/{name}"
    return Item(staged, f"{S}/{name}", f"{PREVIOUS}/{name}", f"{PREVIOUS}-undone/{name}", **more)


def restore_fields():
    apart = {"aside": f"/srv/.{PREVIOUS[-25:]}/data", "used": "/srv/.undone/data"}
    outside = OutsideItem(
        *("path /srv/data", f"{S}/restore/t1/outside/srv/data", "/srv/data"),
        *(apart["aside"], apart["used"]),
        fresh="/srv/.fresh/data",
        volume="data",
        labels=("a=b",),
        links=("/srv/link",),
        stays=(("x", "x/*"),),
    )
    mount = replace(outside, live="/mnt/data", is_mount=True, volume="", links=(), stays=())
    piece = OutsideItem("wal", "/disk/.fresh", "/disk/wal", "/disk/.aside", "/disk/.used")
    return {
        "kinds": ("general", "influx", "mariadb", "postgres", *RECIPES, "outside"),
        "in_place": True,
        "access": ACCESS,
        "compose": ("docker", "compose", "--project-directory", S, "--file", f"{S}/c.yml"),
        "previous": PREVIOUS,
        "items": (
            item("docker-compose.yml", is_top_file=True),
            item("volumes/nodered"),
            item("volumes/card", fresh=f"{S}/volumes/card/.fresh"),
        ),
        "running": ("influxdb", "mariadb", "nodered"),
        "expected": ("influxdb", "mariadb", "nodered"),
        "bare": False,
        "server": Server("influxdb", f"{S}/volumes/influxdb/data", (("wal", "/disk/wal"),)),
        "server_there": True,
        "databases": (),
        "dump_inside": "/var/lib/influxdb/backup/t1/influx",
        "free_bytes": 0,
        "limit_s": 3600.0,
        "influx_pieces": (piece,),
        "loads": (
            sql_import(MARIA, f"{S}/restore/t1/mariadb/dump.sql"),
            sql_import(POSTGRES, f"{S}/restore/t1/postgres/dump.sql", stays=Held(("a",), ("b",))),
            sql_import(NEXTCLOUD, f"{S}/restore/t1/nextcloud/dump.sql", beside=True),
        ),
        "quiet": (("nextcloud", "nextcloud"),),
        "outside": (outside, mount),
        "outside_paths": ("srv/data",),
        "stays": ("volumes/nodered/cache/*",),
        "vital": ("nodered",),
        "more": {"influxdb": Held(("old",), ("user",)), "mariadb": Held()},
        "around": (Around("/srv", "/srv/data", f"{S}/restore/t1/outside/srv"),),
        "owner_file": f"{S}/restore/t1/stack/docker-compose.yml",
    }


def restored(**given):
    facts = RestoreFacts(**(restore_fields() | given))
    return restore_book(), ["pi:restored/t1"], facts


def bare():
    within = Server("influxdb", f"{S}/restore/.influx", (("data", "/disk/data"),), within=True)
    fillings = (Filling("a volume", f"{S}/restore/t1/outside/x", "nodered", "/data"),)
    fields = {
        "bare": True,
        "server_there": False,
        "volumes_apart": True,
        "running": (),
        "server": within,
        "influx_pieces": (),
        "exact": True,
        "stays": (),
        "more": {},
        "fillings": fillings,
        "volumes": (EmptyVolume("nfs", ("type=nfs",)),),
        "folders": (item("services/old"),),
        "loads": (sql_import(MARIA, f"{S}/restore/t1/mariadb/dump.sql", there=False),),
        "in_place": False,
    }
    return restored(**fields)


def one_database():
    return restored(kinds=("influx",), databases=("home",), outside=(), loads=(), items=())


def reload():
    facts = ReloadFacts(
        server=Server("influxdb", f"{S}/volumes/influxdb/data"),
        access=ACCESS,
        stage=f"{S}/restore/reload",
        stage_inside="/var/lib/influxdb/backup/reload",
        previous=PREVIOUS,
        aside=f"{S}/volumes/.previous",
        used=f"{S}/volumes/.previous-undone",
        limit_s=3600.0,
        keep_days=3,
    )
    return reload_book(), ["pi:reloaded/t1"], facts


def rehearsal():
    images = {"mariadb": "mariadb:11", "postgres": "postgres:16", "nextcloud_db": "mariadb:10"}
    facts = RehearsalFacts(
        **{**restore_fields(), "loads": restore_fields()["loads"][:2]},
        image="influxdb:1.8",
        images=images,
        in_manifest={"shards": 3},
    )
    return rehearsal_book(), rehearsal_targets("t1", facts), facts


PLANS = {
    "backup": backup,
    "restore": restored,
    "restore-bare": bare,
    "reload": reload,
    "restore-influx": one_database,
    "rehearsal": rehearsal,
}


def jobs_of(name):
    """Return the jobs of a plan, each with its steps."""
    book, targets, facts = PLANS[name]()
    return [(job, job.steps) for job in resolve(book, targets, ROOTS, facts).jobs]


def printed(name):
    lines = []
    for job, steps in jobs_of(name):
        lines.append(f"# {job.name}: {', '.join(map(str, job.outputs))}")
        for step in steps:
            lines += [f"{type(step).__name__}: {each}" for each in step.commands()]
    text = "\n".join([*lines, ""])
    for here, told in HERE.items():
        text = text.replace(here, told)
    return text


@pytest.mark.parametrize("name", PLANS)
def test_each_command_is_printed_as_ever(name):
    """Byte for byte: what is meant to change changes in the file of the plan as well."""
    assert printed(name) == (folders.CHECKOUT / f"tests/plans/{name}.commands.txt").read_text()


def test_each_step_that_can_be_undone_is_in_a_plan():
    """But for what only journals hold, and what stops a container that has a dump of its own."""
    found = {type(step) for name in PLANS for _, steps in jobs_of(name) for step in steps}
    names = {each.__name__ for each in {*undoable()} - found}
    assert names == {"LeaveGone"}
