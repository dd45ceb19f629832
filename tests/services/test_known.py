"""The table of services: every template is in it, and every container finds its row."""

import tomllib
from pathlib import Path

import pytest

import iotstack_invoke
from iotstack_invoke.backups.names import PARTS
from iotstack_invoke.services import known as table_room
from iotstack_invoke.services.containers import Container
from iotstack_invoke.services.known import (
    DUMPED,
    PART_OF_DUMP,
    ROW_KEYS,
    Kind,
    Service,
    cover,
    image_name,
    packaged_recipes,
    packaged_service,
    read_row,
    read_table,
    row_mistakes,
)

FILE = Path(table_room.__file__).with_name(table_room.FILE)
ROWS = tomllib.loads(FILE.read_text("utf-8"))["services"]
TEMPLATES = (
    *("adguardhome", "adminer", "blynk_server", "chronograf", "dashmachine", "deconz"),
    *("diyhue", "domoticz", "dozzle", "duckdns", "esphome", "espruinohub", "gitea"),
    *("grafana", "heimdall", "home_assistant", "homebridge", "homer", "influxdb"),
    *("influxdb2", "kapacitor", "mariadb", "matterbridge", "mjpg-streamer", "mosquitto"),
    *("motioneye", "n8n", "nextcloud", "nginx", "nodered", "octoprint", "openhab", "otbr"),
    *("pgadmin4", "pihole", "pihole6", "plex", "portainer-ce", "portainer_agent", "postgres"),
    *("prometheus", "prometheus-cadvisor", "prometheus-nodeexporter", "python"),
    *("python-matter-server", "qbittorrent", "ring-mqtt", "rtl_433", "scrypted", "syncthing"),
    *("tasmoadmin", "telegraf", "timescaledb", "transmission", "webthingsio_gateway"),
    *("wireguard", "wordpress", "zerotier-client", "zerotier-router", "zigbee2mqtt"),
    "zigbee2mqtt_assistant",
)


def container(image, name="x", *, running=True):
    return Container(name, image, "", "", running=running)


def own(**row):
    """Return a row of hosts.toml on top of the package's."""
    return read_row(row, table_room.packaged_service(row["name"]), own=True)


def found(image, name="x", *rows):
    """Return the name of the service that a container is, None where it is none."""
    service = read_table(rows).service_of(container(image, name))
    return service and service.name


def how(image, name="x", *rows, running=True):
    (told,) = cover([container(image, name, running=running)], read_table(rows))
    return str(told)


# The file


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_each_row_is_one_that_hosts_toml_could_hold(row):
    """But for recipes no key is unknown, none is of another type, and `first` names services."""
    given = {key: value for key, value in row.items() if key != "recipe"}
    assert set(given) <= set(ROW_KEYS)
    assert all(isinstance(value, ROW_KEYS[key]) for key, value in given.items())
    assert row_mistakes(given, packaged_service(row["name"])) == []
    assert set(row.get("first", ())) <= {each["name"] for each in ROWS}
    assert row.get("reason", "x").strip()
    assert row.get("notes", "x.").endswith(".")


def test_every_template_has_a_row():
    """IOTstack has 61 of them; three come with a database that is a service as well."""
    databases = {f"{name}_db" for name in ("gitea", "nextcloud", "wordpress")}
    older = {"portainer", "webthings_gateway"}  # templates that there once were
    names = [row["name"] for row in ROWS]
    assert len(TEMPLATES) == 61
    assert set(names) == {*TEMPLATES, *databases, *older}
    assert names == sorted(set(names))


def test_an_image_says_which_service_it_is():
    """Where several rows have an image, one of them bears its name, or they are saved alike."""
    rows = [read_row(row) for row in ROWS]
    for image in {image for each in rows for image in each.images}:
        mine = [each for each in rows if image in each.images]
        alike = {(each.kind, each.paths) for each in mine}
        assert len(alike) == 1 or image in {each.name for each in mine} or image == "pihole"


def test_a_database_that_nobody_saves_is_no_service():
    """An image is in one list only, and each name is one that an image can have."""
    listed = tomllib.loads(FILE.read_text("utf-8"))["databases"]
    assert listed == sorted(set(listed))
    assert not {image for row in ROWS for image in row.get("images", ())} & set(listed)
    assert all(image_name(f"{each}:1").endswith(each.rpartition("/")[2]) for each in listed)


def test_a_cache_is_known_by_its_image():
    """Its names are sorted, and a row of hosts.toml goes first; only memcached writes nothing."""
    content = tomllib.loads(FILE.read_text("utf-8"))
    assert content["caches"] == sorted(set(content["caches"]))
    assert {*content["caches"]} - {*content["databases"]} == {"memcached"}
    for image in ("docker.io/valkey/valkey:8-bookworm", "redis:8-alpine", "bitnami/memcached"):
        assert read_table().is_cache(container(image, "immich_redis"))
    assert not read_table([own(name="x", kind="stop")]).is_cache(container("redis:8"))
    assert not read_table().is_cache(container("mongo:7"))


def test_each_dump_goes_into_a_part():
    """The dumps that a backup makes are among those that a row may name."""
    assert set(PART_OF_DUMP) >= DUMPED
    assert {row["dump"] for row in ROWS if "dump" in row} == set(PART_OF_DUMP)


def test_what_is_read_of_the_package_is_shipped():
    """An installed program has the table, and the scripts that run in containers, too."""
    package = Path(iotstack_invoke.__file__).parent
    project = tomllib.loads((package.parent / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["iotstack_invoke"]
    shipped = {path for each in patterns for path in package.glob(each)}
    files = {path for path in package.glob("**/*") if path.is_file()}
    assert {path for path in files if path.suffix not in (".py", ".pyc")} == shipped


# Who is in it


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("mariadb", "mariadb"),
        ("postgres:16-alpine", "postgres"),
        ("registry.lan:5000/a/mongo:7@sha256:abc", "mongo"),
        ("timescale/timescaledb:latest-pg16", "timescaledb"),
        ("iotstack_mariadb", "mariadb"),
        ("iotstack-nextcloud_db:latest", "nextcloud_db"),
        ("ghcr.io/home-assistant/raspberrypi4-64-homeassistant:2026.11", "homeassistant"),
        ("sha256:abc", "sha256"),
        ("", ""),
    ],
)
def test_an_image_has_a_plain_name(image, name):
    """Registry, tag, digest and the prefix of a builder say nothing of what is inside."""
    assert image_name(image) == name


@pytest.mark.parametrize(
    ("image", "name", "service"),
    [
        ("grafana/grafana:11", "grafana", "grafana"),
        ("grafana/grafana-oss", "pictures", "grafana"),
        ("nodered:stand", "mosquitto", "mosquitto"),  # a name says more than a program's image
        ("iotstack_mariadb", "gitea_db", "gitea_db"),
        ("iotstack-gitea_db", "gitea_db", "gitea_db"),
        ("linuxserver/mariadb:10@sha256:abc", "mydb", "mariadb"),
        ("influxdb:1.11", "influxdb", "influxdb"),
        ("influxdb:latest", "influxdb2", "influxdb2"),
        ("influxdb:2.7", "measurements", "influxdb"),
        ("mariadb:11", "nextcloud_db", "nextcloud_db"),
        ("postgres:17", "nextcloud_db", "postgres"),  # but a database's image says more
        ("mariadb:11", "grafana", "mariadb"),
        ("timescale/timescaledb:latest-pg12", "postgres", "timescaledb"),
        ("mongo:7", "grafana", None),
        ("nextcloud:30", "mycloud", None),  # where it lies is not known
        ("portainer/agent:2", "x", "portainer_agent"),
        ("ghcr.io:443/portainer/agent", "x", "portainer_agent"),
        ("other/agent:2", "x", None),
        ("portainer/portainer-ee:lts", "x", "portainer"),
        ("portainer/portainer:latest", "docker", "portainer"),
        ("portainer/portainer-ce:lts", "portainer", "portainer"),
        ("mozillaiot/gateway:arm", "webthings_gateway", "webthings_gateway"),
        ("mozillaiot/gateway:arm", "things", "webthings_gateway"),
        ("webthingsio/gateway:latest", "x", "webthingsio_gateway"),
        ("kunde21/gitea-arm:latest", "x", "gitea"),
        ("notportainer/agent", "x", None),
        ("zyclonite/zerotier", "zerotier", "zerotier-client"),
        ("pihole/pihole", "pihole6", "pihole6"),
        ("python:3.13", "mine", None),
        ("redis-commander", "x", None),
        ("postgres-exporter", "x", None),
        ("", "", None),
    ],
)
def test_a_container_is_the_service_of_its_name_or_image(image, name, service):
    """The name goes first, unless the image is that of another database."""
    assert found(image, name) == service


def test_what_hosts_toml_says_goes_first():
    """A row of one's own is found by its containers, then by images that it names itself."""
    mine = own(name="mine", kind="copy-safe", containers=["a", "b"], images=["mongo"])
    assert found("postgres", "b", mine) == "mine"
    assert found("mongo:7", "x", mine) == "mine"
    assert found("postgres", "mine", mine) == "postgres"
    stopped = own(name="gitea_db", kind="stop")
    assert found("mariadb", "gitea_db", stopped) == "gitea_db"
    assert found("mariadb", "mydb", stopped) == "mariadb"  # not by an image of the package


def test_a_row_takes_what_it_does_not_give_from_the_package():
    """An override changes what it names; a new row has a container and a folder of its name."""
    assert own(name="grafana", kind="stop") == Service(
        "grafana",
        Kind.STOP,
        ("grafana", "grafana-enterprise", "grafana-oss"),
        ("grafana",),
        ("volumes/grafana",),
        own=True,
        data=("/var/lib/grafana",),
    )
    assert own(name="wordpress_db", kind="stop").dump == ""
    assert own(name="wordpress_db", notes="x").dump == "mariadb"
    assert [own(name="portainer-ce", kind=each).notes for each in ("stop", "copy-safe")] == [
        "",
        "",
    ]
    assert own(name="portainer-ce", kind="stop", notes="Mine.").notes == "Mine."
    assert "makes sure" in own(name="portainer-ce", paths=["own"]).notes
    assert own(name="new", kind="skip", reason="r", paths=["./volumes//new/"]) == Service(
        "new", Kind.SKIP, (), ("new",), ("volumes/new",), reason="r", own=True
    )


# How it is saved


@pytest.mark.parametrize(
    ("image", "name", "told"),
    [
        ("influxdb:1.8", "influxdb", "dumped into the influx part"),
        ("iotstack-nodered", "nodered", "files; SQLite by online backup"),
        ("eclipse-mosquitto", "mosquitto", "files"),
        ("prom/prometheus", "prometheus", "files; tar warns if one changed"),
        ("plex", "plex", "files, large and replaceable"),
        (
            "nextcloud",
            "nextcloud",
            "NOT COVERED: left out: Nextcloud is not safe to copy while it runs",
        ),
        ("unheard/of", "unheard", "files; SQLite by online backup"),
        ("mongo:7", "mongo", "NOT COVERED: mongo writes while it is copied"),
        ("mcr.io/mssql/server:2", "x", "NOT COVERED: mssql/server writes while it is copied"),
        (
            "influxdb:1.8",
            "other",
            "NOT COVERED: of all InfluxDBs only container influxdb is dumped",
        ),
    ],
)
def test_how_a_container_is_saved_is_told_in_a_phrase(image, name, told):
    """What is copied, dumped, left out or not covered is told as such."""
    assert how(image, name) == told


@pytest.mark.parametrize("dump", sorted(PART_OF_DUMP))
def test_a_dump_that_no_backup_makes_covers_nothing(dump, monkeypatch):
    """A database is covered by the dump of its kind only where a backup makes that dump."""
    name = "influxdb" if dump == "influxdb" else "mine"
    row = own(name=name, kind="dump", dump=dump)
    monkeypatch.setattr(table_room, "DUMPED", frozenset())
    assert how("any", name, row) == f"NOT COVERED: {dump} writes while it is copied"
    monkeypatch.setattr(table_room, "DUMPED", frozenset({dump}))
    assert how("any", name, row).startswith(f"dumped into the {PART_OF_DUMP[dump]} part")


def test_what_is_stopped_cannot_be_dumped():
    """A stopped database is told as such; it may be running at the next backup."""
    assert how("influxdb", "influxdb", running=False).startswith("it is stopped, so its files")
    assert how("mongo", "mongo", running=False).startswith("NOT COVERED: mongo can be copied only")


def test_whose_influxdb_is_dumped_is_said_by_the_settings():
    """Only the container that [influxdb] names has a part."""
    table = read_table((), "flux")
    told = cover([container("influxdb:1.8", name) for name in ("influxdb", "flux")], table)
    assert [(each.container.name, each.covered) for each in told] == [
        ("flux", True),
        ("influxdb", False),
    ]


@pytest.mark.parametrize(
    ("image", "advice"),
    [
        ("influxdb:1.8", '[influxdb] container = "weather"'),
        ("influxdb:1.8-alpine", '[influxdb] container = "weather"'),
        ("influxdb", '[influxdb] container = "weather"'),
        ("docker.io/library/influxdb:2.7", 'name = "weather", kind = "dump", dump = "influxdb2"'),
    ],
)
def test_the_advice_for_an_influxdb_of_another_name_is_the_cure(image, advice):
    """Which setting has it dumped is told, and none with paths that it does not have."""
    (told,) = cover([container(image, "weather")], read_table())
    assert not told.covered
    assert advice in told.warning
    assert 'kind = "stop"' not in told.warning


@pytest.mark.parametrize("kind", ["copy-safe", "stop"])
def test_what_the_owner_says_of_a_database_is_taken_at_its_word(kind):
    """A row in hosts.toml silences the warning of an image."""
    assert (
        how("mongo", "mongo", own(name="mongo", kind=kind))
        == {
            "copy-safe": "files",
            "stop": "stopped while it is copied",
        }[kind]
    )


def test_a_warning_names_the_container_and_the_way_out():
    """Container, image, and what to write into hosts.toml are in one sentence or two."""
    (told,) = cover([container("mongo:7", "logs")], read_table())
    assert told.warning == (
        'Container logs (mongo:7) is not covered: mongo writes while it is copied. Set in hosts.toml how to save it: [[services]], name = "logs", kind = "stop", or "skip" with a reason.'
    )


# InfluxDB 2 and 3


def test_influxdb_2_is_called_experimental():
    """Whoever looks how it is saved reads so; of several only the one of that name is dumped."""
    assert how("influxdb:2.7", "influxdb2") == "dumped into the influxdb2 part (experimental)"
    assert how("influxdb2", "second").startswith("NOT COVERED: of all InfluxDB 2s only")
    assert how("influxdb:2.7", "influxdb2", running=False).startswith("it is stopped, so its")


@pytest.mark.parametrize("name", ["influxdb", "influxdb2", "influxdb3", "x"])
@pytest.mark.parametrize("image", ["influxdb:3-core", "docker.io/influxdb:3.2.1", "influxdb:3"])
def test_influxdb_3_is_never_covered_while_it_runs(name, image):
    """It has no backup of its own; the row with `stop` that the warning gives is the way out."""
    assert how(image, name).startswith("NOT COVERED: InfluxDB 3 has no backup command")
    assert not how(image, name, own(name=name, kind="stop")).startswith("NOT")
    assert "InfluxDB 3" not in how("influxdb:1.8.3", name)


# Recipes


def recipe_covers(*containers, **rows):
    table = read_table(own(name=name, kind=kind) for name, kind in rows.items())
    return {each.container.name: each for each in cover(containers, table)}


def test_a_recipe_has_a_part_of_its_own():
    """What a recipe names is there: its part, its database, a folder that its row is of."""
    for name, recipe in packaged_recipes().items():
        assert name in PARTS
        assert packaged_service(recipe.database)
        assert all(path.startswith(recipe.folder) for path in packaged_service(name).paths)
        assert bool(recipe.enter) == bool(recipe.leave and recipe.ask and recipe.awake)


def test_a_service_is_saved_with_its_database_where_that_runs():
    """Without it Gitea is plain files; one that hosts.toml saves otherwise is no recipe's."""
    gitea, database = container("gitea:1", "gitea"), container("gitea_db:latest", "gitea_db")
    found = recipe_covers(gitea, database)
    assert {each.part for each in found.values()} == {"gitea"}
    assert found["gitea"].how == "in the gitea part, with the dump of gitea_db"
    assert found["gitea_db"].how == "dumped into the gitea part"
    assert recipe_covers(gitea)["gitea"].how == "files; SQLite by online backup"
    off = container("gitea_db:latest", "gitea_db", running=False)
    assert {each.part for each in recipe_covers(gitea, off).values()} == {""}
    assert recipe_covers(gitea, database, gitea_db="stop")["gitea"].part == ""
    assert recipe_covers(gitea, database, gitea="copy-safe")["gitea_db"].part == ""


def test_nextcloud_is_saved_where_it_is_switched_on():
    """It is left out by default; switched on, it is not covered without its database."""
    both = container("nextcloud:30", "nextcloud"), container("nextcloud_db", "nextcloud_db")
    assert {each.part for each in recipe_covers(*both).values()} == {""}
    found = recipe_covers(*both, nextcloud="recipe")
    assert {each.part for each in found.values()} == {"nextcloud"}
    alone = recipe_covers(both[0], nextcloud="recipe")["nextcloud"]
    assert str(alone) == "NOT COVERED: nextcloud_db is not a running MariaDB that is dumped"


def test_only_what_the_package_has_a_recipe_for_is_of_that_kind():
    """Another service of that kind is a mistake that names those there are."""
    assert row_mistakes({"name": "x", "kind": "recipe"}) == [
        "kind = 'recipe' is for gitea, nextcloud, wordpress"
    ]
