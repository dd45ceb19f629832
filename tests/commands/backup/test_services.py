"""What is told of each container of a stack, and what a backup makes of it."""

import json
import os
import re
import tarfile
import tomllib

import pytest
from fake_docker import LittleDocker
from fake_influx2 import TOKEN, with_influx2

from iotstack_invoke.backups.manifest import with_sum
from iotstack_invoke.databases.influxdb2.check import EXPERIMENTAL
from iotstack_invoke.settings.model import read_settings

TAG = "2026-11-23_1100"
DATA = "/var/lib/influxdb"
MODULES = "modules, which `docker exec nodered npm install --prefix /data` fetches again"
NEXTCLOUD = "Nextcloud is not safe to copy while it runs"


def add(stack, text):
    with stack.settings.open("a") as stream:
        stream.write(text)


def row(name, **keys):
    """Return a row of hosts.toml."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"name": name, **keys}.items()]
    return "\n".join(["[[services]]", *lines, ""])


def listed(stack, code=0):
    """Return how each container, or each folder that none uses, is saved."""
    told = stack.run("services --json")
    assert (told.returncode, told.stderr) == (code, "")
    rows = json.loads(told.stdout)
    assert all(each["covered"] for each in rows) == (code == 0)
    return {each["container"] or each["paths"][0]: each["saved"] for each in rows}


def backed_up(stack, code=0):
    """Make a backup, and return its manifest and the names in its general part."""
    told = stack.run(f"backup --runtag {TAG}")
    assert told.returncode == code, told.stderr
    manifest = json.loads((stack.folder / f"backups/{TAG}.manifest.json").read_text())
    for warning in manifest["warnings"]:
        assert warning in told.stderr
    return manifest, members_of_general(stack)


def members_of_general(stack):
    with tarfile.open(stack.folder / f"backups/{TAG}.general-backup.tar.gz") as archive:
        return archive.getnames()


def test_each_container_and_each_other_folder_is_told(little_stack):
    """Containers come by name, then the folders that none uses, in words that a person reads."""
    little_stack.runs(nextcloud="nextcloud:30", grafana="grafana/grafana")
    before = little_stack.tree()
    told = little_stack.run("services")
    assert (told.returncode, told.stderr) == (3, "")
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert lines == [
        "container image saved paths notes",
        "grafana grafana/grafana files; SQLite by online backup volumes/grafana",
        (
            f"nextcloud nextcloud:30 NOT COVERED: left out: {NEXTCLOUD} volumes/nextcloud "
            'kind = "recipe" in hosts.toml saves it, in maintenance mode meanwhile.'
        ),
        f"volumes/nodered/data/node_modules/*: left out: {MODULES}",
        "volumes/nodered: files, no container uses it",
    ]
    assert little_stack.tree() == before


def test_a_container_that_mounts_nothing_of_the_stack_has_no_files(little_stack):
    """What it is by its name or image says nothing where Docker tells what it mounts."""
    little_stack.runs(grafana="grafana/grafana")
    told = little_stack.tools / "docker.json"
    told.write_text(told.read_text().replace(f"{little_stack.folder}/volumes", "/run"))
    assert (
        listed(little_stack)["grafana"]
        == "mounts no data; data inside the container are not backed up"
    )


def test_json_tells_the_same_and_more(little_stack):
    """Kind, paths and notes are there for programs."""
    little_stack.runs(
        mosquitto="eclipse-mosquitto:2",
        mounts={"mosquitto": [("./volumes/mosquitto", "/mosquitto")]},
    )
    rows = json.loads(little_stack.run("services --json").stdout)
    assert rows[0] == {
        "container": "mosquitto",
        "image": "eclipse-mosquitto:2",
        "kind": "copy-safe",
        "saved": "files",
        "covered": True,
        "paths": ["volumes/mosquitto"],
        "notes": "",
        "left_out": [
            {
                "path": "volumes/mosquitto/data/*",
                "reason": "old retained messages, which every subscriber would be sent after a restore",
            }
        ],
        "in_layer": "",
    }
    assert [each["paths"] for each in rows[1:]] == [["volumes/nodered"]]


def test_a_database_that_nobody_covers_ends_with_3(little_stack):
    """It is told in capitals, whether it runs or not."""
    little_stack.runs(mongo="mongo:7", cache="redis:8", down=("cache",))
    found = listed(little_stack, code=3)
    assert found["mongo"] == "NOT COVERED: mongo writes while it is copied"
    assert found["cache"].startswith("NOT COVERED: redis")


@pytest.mark.parametrize(
    "image", ["docker.io/valkey/valkey:8-bookworm", "redis:8", "eqalpha/keydb", "memcached:1"]
)
@pytest.mark.parametrize(
    "mounts",
    [
        [],
        [("./services/cache/redis.conf", "/usr/local/etc/redis/redis.conf")],
        [("./services/cache/users.acl", "/data/users.acl")],
    ],
)
def test_a_cache_that_keeps_nothing_in_the_stack_needs_no_warning(little_stack, image, mounts):
    """Nothing of it could be torn; settings that it mounts are plain files."""
    little_stack.runs(cache=image, mounts={"cache": mounts})
    assert not listed(little_stack)["cache"].startswith("NOT")
    assert backed_up(little_stack)[0]["state"] == "complete"


@pytest.mark.parametrize(
    ("image", "mounts", "told"),
    [
        ("mongo:7", [], "the data of mongo are inside the container"),
        (
            "mysql:8",
            [("./services/db/my.cnf", "/etc/my.cnf")],
            "are inside the container: they are lost when it is removed,",
        ),
        ("redis:8", [("./volumes/db", "/data")], "redis writes while it is copied"),
    ],
)
def test_data_that_lie_in_a_container_are_told_as_in_no_part(little_stack, image, mounts, told):
    """Of a database that is no cache it is told where its data are, and what helps."""
    little_stack.runs(db=image, mounts={"db": mounts})
    assert told in listed(little_stack, code=3)["db"]
    (warning,) = backed_up(little_stack, code=3)[0]["warnings"]
    assert told in warning
    advice = "Move them to a folder in volumes/; or allow in hosts.toml to lose it"
    assert (advice in warning) == (image != "redis:8")
    assert 'name = "db"' in warning


LAYER = ["C /config", "A /config/home-assistant.db"]


@pytest.mark.parametrize("down", [(), ("ha",)])
@pytest.mark.parametrize(
    ("image", "mounts", "wrote", "place"),
    [
        ("ghcr.io/home-assistant/home-assistant:stable", [], LAYER, "/config"),
        (
            "koenkk/zigbee2mqtt",
            [("./volumes/z.yaml", "/app/data/z.yaml")],
            ["C /app/data", "A /app/data/z.yaml", "A /app/data/database.db"],
            "/app/data",
        ),
        (
            "grafana/grafana",
            [("./volumes/log", "/var/log/grafana")],
            ["C /var", "C /var/lib/grafana", "A /var/lib/grafana/grafana.db"],
            "/var/lib/grafana",
        ),
        ("home-assistant", [], ["C /tmp", "A /tmp/x"], ""),
        ("home-assistant", [("./volumes/ha", "/config")], LAYER, ""),
        ("home-assistant", [("./volumes/ha", "/config/")], LAYER, ""),
        (
            "koenkk/zigbee2mqtt",
            [("./volumes/z", "/app/data/deep/z")],
            ["C /app/data", "A /app/data/deep", "A /app/data/deep/z"],
            "",
        ),
        ("python:3", [], ["A /usr/src/app/x.pyc"], ""),
    ],
)
def test_data_in_a_containers_own_layer_are_not_covered(
    little_stack, down, image, mounts, wrote, place
):
    """What it wrote where nothing is mounted goes with it; folders on the way to a mount are none."""
    little_stack.runs(ha=image, mounts={"ha": mounts}, wrote={"ha": wrote}, down=down)
    told = listed(little_stack, code=3 if place else 0)["ha"]
    assert (f"its data in {place} are inside the container" in told) == bool(place)
    warnings = backed_up(little_stack, code=3 if place else 0)[0]["warnings"]
    assert [f"Mount a folder of volumes/ at {place}" in each for each in warnings] == [
        True
    ] * bool(place)


@pytest.mark.parametrize("row_of_it", [{"data": []}, {"kind": "skip", "reason": "a toy"}])
def test_data_in_a_layer_that_their_owner_lets_go_are_no_warning(little_stack, row_of_it):
    """A row of hosts.toml says that nothing there is of worth."""
    little_stack.runs(
        grafana="grafana/grafana",
        mounts={"grafana": []},
        wrote={"grafana": ["A /var/lib/grafana/grafana.db"]},
    )
    listed(little_stack, code=3)
    add(little_stack, row("grafana", **row_of_it))
    listed(little_stack)


@pytest.mark.parametrize("mounts", [[], [("./volumes/z.yaml", "/app/data/z.yaml")]])
def test_a_layer_of_which_docker_does_not_tell_is_named(little_stack, mounts):
    """Whatever is mounted near by; the rest is backed up."""
    little_stack.runs(z="koenkk/zigbee2mqtt", proxy="traefik", mounts={"z": mounts, "proxy": []})
    docker = (little_stack.tools / "docker").read_text()
    little_stack.tool(
        "docker", f'[ "$1" != diff ] || {{ echo "no such layer" >&2; exit 1; }}\n{docker}'
    )
    manifest, names = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert warning.startswith(
        "Container z (koenkk/zigbee2mqtt) is not covered: its data in /app/data"
    )
    assert "no such layer" in warning
    assert "./volumes/nodered/flows.json" in names
    told = little_stack.run("services")
    assert told.returncode == 3
    assert (
        "Container proxy: it mounts no data, and Docker does not show what it wro" in told.stdout
    )


OF_A_PROXY = [
    *("C /run", "A /run/nginx.pid", "C /var", "C /var/cache", "C /var/cache/nginx", "C /etc"),
    *("A /var/cache/nginx/temp", "C /etc/nginx", "C /etc/nginx/default.conf", "A /etc/passwd-"),
    *("C /root", "A /root/.cache", "A /root/.cache/x", "A /root/.ash_history", "C /tmp/x"),
    *("C /app", "A /app/__pycache__", "A /app/__pycache__/a.pyc", "A /app/s", "A /app/s/a.sock"),
    *("D /usr/share/nginx/html", "A /etc/mine", "A /etc/mine/docker.sock"),
]

OF_DOCKER = [
    *("C /sbin", "A /sbin/docker-init", "C /usr/sbin", "A /usr/sbin/docker-init", "A /.dockerenv"),
    *("C /etc", "A /etc/hostname", "A /etc/hosts", "A /etc/resolv.conf", "A /dev/console"),
]
"""With `init: true`, and by some drivers of storage."""


@pytest.mark.parametrize(
    ("image", "wrote", "told"),
    [
        ("nginx", OF_A_PROXY, ""),
        ("my/app", OF_DOCKER, ""),
        ("b4bz/homer", [*OF_A_PROXY, "A /x"], "1 file or folder into its own layer, such as /x:"),
        (
            "my/app",
            ["C /app", "C /app/a", "C /app/a/x.db", "A /app/b", "A /etc/mine.conf"],
            "3 files or folders into its own layer, such as /app/a/x.db, /app/b:",
        ),
    ],
)
def test_what_a_container_without_data_wrote_is_told(little_stack, image, wrote, told):
    """By services, doctor and the log of a backup; logs, sockets and caches are silent."""
    mounts = {"web": [("/run/docker.sock", "/etc/mine/docker.sock")]}
    little_stack.runs(web=image, mounts=mounts, wrote={"web": wrote})
    said = little_stack.run("services")
    assert (said.returncode, said.stderr) == (0, "")
    assert ("Container web: it mounts no data, but wrote" in said.stdout) == bool(told)
    assert told in said.stdout
    if not told:
        return
    assert backed_up(little_stack)[0]["state"] == "complete"
    assert told in (little_stack.folder / f"backups/{TAG}.backup-log.txt").read_text()
    assert told in little_stack.run("doctor").stdout
    add(little_stack, row("web", kind="skip", reason="a toy"))
    assert "wrote" not in little_stack.run("services").stdout


def test_without_docker_the_folders_are_told(little_stack):
    """Why nothing is known of the containers is told, and what is still left out."""
    little_stack.tool("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    (little_stack.folder / "volumes/nextcloud").mkdir()
    (little_stack.folder / "volumes/influxdb").mkdir()
    told = little_stack.run("services")
    assert told.returncode == 3
    assert "Docker does not answer: " in told.stderr
    assert told.stdout.splitlines() == [
        f"volumes/nodered/data/node_modules/*: left out: {MODULES}",
        "volumes/influxdb: NOT COVERED: cannot tell whether InfluxDB runs; copied as files",
        f"volumes/nextcloud: left out: {NEXTCLOUD}",
        "volumes/nodered: files; its container is unknown",
    ]
    (little_stack.folder / "docker-compose.yml").write_text(
        "services:\n  flows:\n    image: x\n    volumes: [./volumes/nodered:/data]\n"
    )
    told = little_stack.run("services").stdout.splitlines()[-1]
    assert told == (
        "volumes/nodered: files; its container is unknown now; the compose file uses it for flows"
    )


def test_the_data_of_an_influxdb_that_is_gone_are_not_covered(little_stack):
    """Without a container nothing can be dumped, and its files are copied as they are."""
    (little_stack.folder / "volumes/influxdb").mkdir()
    assert "no container named influxdb" in listed(little_stack, 3)["volumes/influxdb"]
    add(little_stack, '[influxdb]\ncontainer = "flux"\n')
    assert "no container named flux" in listed(little_stack, 3)["volumes/influxdb"]


@pytest.mark.parametrize("knows", ["nothing", "the folder", "hosts.toml", "a service", "a name"])
def test_that_there_is_no_influxdb_is_told_where_there_was_one(little_stack, knows):
    """Of a stack that never had one nobody asks for it."""
    little_stack.runs(nodered="nodered/node-red")
    service, name = {
        "a service": ("influxdb", ""),
        "a name": ("x", "container_name: influxdb"),
    }.get(knows, ("nodered", ""))
    compose = f"services:\n  {service}: {{image: x, {name}}}\n"
    (little_stack.folder / "docker-compose.yml").write_text(compose)
    if knows == "the folder":
        (little_stack.folder / "volumes/influxdb").mkdir()
    if knows == "hosts.toml":
        add(little_stack, '[influxdb]\ncontainer = "flux"\n')
    manifest, _ = backed_up(little_stack)
    told = [each["what"] for each in manifest["left_out"]]
    assert told == ([] if knows == "nothing" else ["InfluxDB"])


def test_what_the_owner_says_of_an_influxdb_that_is_gone_counts(little_stack):
    """Its files are packed as any other's, its reason is in the manifest, and nobody warns."""
    little_stack.runs(nodered="nodered/node-red")
    (little_stack.folder / "volumes/influxdb").mkdir()
    (little_stack.folder / "volumes/influxdb/old").write_text("x")
    _, names = backed_up(little_stack, code=3)
    assert "WARN  influxdb" in little_stack.run("doctor").stdout
    for each in (little_stack.folder / "backups").iterdir():
        each.unlink()
    add(
        little_stack,
        "[[services]]\nname = 'influxdb'\nkind = 'skip'\npaths = []\nreason = 'away'\n",
    )
    manifest, names = backed_up(little_stack)
    assert manifest["warnings"] == []
    assert "./volumes/influxdb/old" in names
    (told,) = [each for each in manifest["left_out"] if each["what"] == "InfluxDB"]
    assert told["reason"] == "no container named influxdb: away"
    assert listed(little_stack)["volumes/influxdb"] == "files, no container uses it"
    said = little_stack.run("doctor").stdout
    assert "WARN  influxdb" not in said
    assert "matches no container" not in said


def test_where_there_is_no_stack_it_is_refused(little_stack):
    """The way out is told, as by a backup."""
    (little_stack.folder / "docker-compose.yml").unlink()
    told = little_stack.run("services")
    assert (told.returncode, told.stdout) == (13, "")
    assert ". Set its folder:" in told.stderr


# What a backup makes of it


FETCHED_ANEW = {
    "esphome": ("esphome/esphome", "/config", ".esphome/build/pump/firmware.bin"),
    "home_assistant": ("ghcr.io/home-assistant/home-assistant:stable", "/config", "backups/a.tar"),
    "mosquitto": ("eclipse-mosquitto:2", "/mosquitto", "data/mosquitto.db"),
    "motioneye": ("dontobi/motioneye.rpi", "/var/lib/motioneye", "Camera1/today.mp4"),
    "nodered": ("nodered/node-red", "/data", "node_modules/x/package.json"),
    "zigbee2mqtt": ("koenkk/zigbee2mqtt", "/app/data", "log/2026-11-23/log.txt"),
}
"""What a stack holds and no backup needs: the image, where it mounts its folder, a file there."""


def with_what_is_fetched_anew(stack):
    """Let a container of each run, and put what no backup needs into its folder."""
    stack.runs(
        **{name: image for name, (image, _, _) in FETCHED_ANEW.items()},
        mounts={
            name: [(f"./volumes/{name}", inside)] for name, (_, inside, _) in FETCHED_ANEW.items()
        },
    )
    for name, (_, _, path) in FETCHED_ANEW.items():
        folder = stack.folder / "volumes" / name
        (folder / "data").rename(folder / "kept")
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("again")


def test_what_can_be_fetched_anew_is_left_out_and_told(little_stack):
    """It is in no archive; the manifest and `services` name each path with its reason."""
    with_what_is_fetched_anew(little_stack)
    manifest, names = backed_up(little_stack)
    left_out = {each["what"]: each["reason"] for each in manifest["left_out"]}
    told = little_stack.run("services")
    assert told.returncode == 0, told.stderr
    for name, (_, _, path) in FETCHED_ANEW.items():
        assert f"./volumes/{name}/{path}" not in names
        top = "*" if name == "motioneye" else f"{path.partition('/')[0]}/*"
        pattern = f"volumes/{name}/{top}"
        assert left_out[pattern]
        assert f"{pattern}: left out: {left_out[pattern]}" in told.stdout
        if name != "motioneye":
            assert f"./volumes/{name}/kept" in names
        assert (
            f"./volumes/{name}/{top[:-2]}".removesuffix("/") in names
        )  # the empty folder is there
    assert manifest["state"] == "complete"


def test_what_is_left_out_by_default_is_packed_where_the_owner_says_so(little_stack):
    """One setting packs all of it."""
    with_what_is_fetched_anew(little_stack)
    little_stack.settings.write_text(
        little_stack.settings.read_text() + "exclude_defaults = false\n"
    )
    manifest, names = backed_up(little_stack)
    assert not {f"./volumes/{k}/{path}" for k, (_, _, path) in FETCHED_ANEW.items()} - {*names}
    assert not [each for each in manifest["left_out"] if "volumes/mosquitto" in each["what"]]


USUALLY = {
    f"volumes/{path}"
    for path in (
        "esphome/config/.esphome/x",
        "home_assistant/backups/x",
        "mosquitto/data/x",
        "motioneye/var_lib_motioneye/x",
        "nodered/data/node_modules/x",
        "zigbee2mqtt/data/log/x",
    )
}
"""Where IOTstack's templates have what can be fetched anew."""


@pytest.mark.parametrize("docker", ["exit 0", "echo 'Cannot connect' >&2; exit 1"])
def test_what_can_be_fetched_anew_is_left_out_of_a_stack_that_is_down(little_stack, docker):
    """Where no container says where it lies, it is where IOTstack has it."""
    little_stack.tool("docker", docker)
    for path in USUALLY:
        (little_stack.folder / path).parent.mkdir(parents=True)
        (little_stack.folder / path).write_text("x")
    manifest, names = backed_up(little_stack, 0 if docker == "exit 0" else 3)
    assert not {f"./{path}" for path in USUALLY} & {*names}
    told = {each["what"] for each in manifest["left_out"]}
    assert {path.removesuffix("x") + "*" for path in USUALLY} <= told


def test_what_another_container_mounts_is_not_taken_for_what_is_usual(little_stack):
    """Of an unknown program in a folder of a known name all is packed."""
    little_stack.runs(mine="x", mounts={"mine": [("./volumes/mosquitto", "/srv")]})
    (little_stack.folder / "volumes/mosquitto/data").mkdir(parents=True)
    (little_stack.folder / "volumes/mosquitto/data/x").write_text("x")
    assert "./volumes/mosquitto/data/x" in backed_up(little_stack)[1]


def test_a_service_of_the_owner_leaves_out_what_he_says(little_stack):
    """A row packs what its service leaves out by default, or leaves out what no other does."""
    with_what_is_fetched_anew(little_stack)
    add(little_stack, row("mosquitto", leave_out=[]))
    text = '[[services]]\nname = "esphome"\n[[services.leave_out]]\ninside = "/config/kept"\n'
    add(little_stack, text + 'reason = "r"\n')
    manifest, names = backed_up(little_stack)
    assert "./volumes/mosquitto/data/mosquitto.db" in names
    assert "./volumes/esphome/kept" not in names
    assert "./volumes/esphome/.esphome/build/pump/firmware.bin" in names
    assert {"what": "volumes/esphome/kept", "reason": "r"} in manifest["left_out"]


@pytest.mark.parametrize(
    ("mounts", "left_out"),
    [
        ([("./volumes/m/d", "/mosquitto/data")], {"./volumes/m/d/x"}),
        ([("./volumes/m/d", "/mosquitto/data/")], {"./volumes/m/d/x"}),
        ([("./volumes/m", "/mosquitto")], {"./volumes/m/data/x"}),
        # the nearest mount is where the container has it; what lies under it is nobody's
        ([("./volumes/m", "/mosquitto"), ("/run/x", "/mosquitto/data")], set()),
        ([("./volumes/m", "/mosquitto"), ("./volumes/n", "/mosquitto/data")], {"./volumes/n/x"}),
        (
            [("./volumes/m", "/mosquitto/data/one")],
            {"./volumes/m/x", "./volumes/m/d/x", "./volumes/m/data/x"},
        ),
        ([("./volumes/m", "/mosquitto/database")], set()),
        ([("./volumes/[q]*", "/mosquitto/data")], {"./volumes/[q]*/x"}),
        ([], set()),
    ],
)
def test_what_is_left_out_is_where_its_container_has_it(little_stack, mounts, left_out):
    """Whatever the folders of a stack are called, the mounts say where it lies."""
    files = ("m/d/x", "m/data/x", "m/x", "n/x", "[q]*/x", "qq/x")
    little_stack.runs(mosquitto="eclipse-mosquitto:2", mounts={"mosquitto": mounts})
    for each in files:
        (little_stack.folder / "volumes" / each).parent.mkdir(parents=True, exist_ok=True)
        (little_stack.folder / "volumes" / each).write_text("x")
    manifest, names = backed_up(little_stack)
    assert {f"./volumes/{each}" for each in files} - {*names} == left_out
    told = [each for each in manifest["left_out"] if "retained" in each["reason"]]
    assert len(told) == bool(left_out)


def test_every_backup_warns_of_what_is_not_covered(little_stack):
    """Each run and its manifest name container, image and way out; doctor warns as well."""
    little_stack.runs(mongo="mongo:7", grafana="grafana/grafana")
    manifest, names = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert warning.startswith("Container mongo (mongo:7) is not covered: mongo writes")
    assert '[[services]], name = "mongo", kind = "stop", or "skip"' in warning
    assert manifest["state"] == "warnings"
    assert "./volumes/mongo/data" in names
    assert "mongo (mongo:7)" in little_stack.run("backup --dry-run").stderr
    found = json.loads(little_stack.run("doctor --json").stdout)
    assert "container mongo" in [each["name"] for each in found]


@pytest.mark.parametrize("kind", ["copy-safe", "stop"])
def test_a_row_of_the_owner_silences_the_warning(little_stack, kind):
    """Whoever says that a database is copy-safe, or is stopped, is not warned."""
    little_stack.runs(mongo="mongo:7")
    add(little_stack, row("mongo", kind=kind))
    manifest, names = backed_up(little_stack)
    assert manifest["warnings"] == []
    assert "./volumes/mongo/data" in names
    assert not listed(little_stack)["mongo"].startswith("NOT")


def test_what_is_skipped_is_left_out_with_its_reason(little_stack):
    """Its paths are in no part, its reason is in the manifest, and its neighbours are there."""
    little_stack.runs(mongo="mongo:7", mongo2="nodered")
    add(little_stack, row("mongo", kind="skip", reason="a cache"))
    manifest, names = backed_up(little_stack)
    assert {"what": "volumes/mongo", "reason": "a cache"} in manifest["left_out"]
    assert [name for name in names if "mongo" in name] == [
        "./volumes/mongo2",
        "./volumes/mongo2/data",
    ]
    assert listed(little_stack)["mongo"] == "left out: a cache"


def test_what_is_skipped_is_left_out_though_its_container_is_gone(little_stack):
    """What hosts.toml says holds while the stack is down, or Docker is."""
    little_stack.tool("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    (little_stack.folder / "volumes/old").mkdir()
    add(little_stack, row("old", kind="skip", reason="a cache"))
    manifest, names = backed_up(little_stack, code=3)
    assert {"what": "volumes/old", "reason": "a cache"} in manifest["left_out"]
    assert "./volumes/old" not in names


def test_what_is_stopped_for_its_copy_is_so_for_all_that_it_keeps(little_stack, tmp_path):
    """Of what lies outside of the stack's folder the copy is made while it runs: that is told."""
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/bolt.db").write_text("x")
    little_stack.runs(bolt="bolt:1", mounts={"bolt": [(str(tmp_path / "opt"), "/data")]})
    include = f'[[stack.include]]\npath = "{tmp_path}/opt"\n'
    add(little_stack, row("bolt", kind="stop") + include)
    manifest, _ = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert f"bolt (bolt:1) is not covered: {tmp_path}/opt is copied while it runs" in warning
    little_stack.settings.write_text(
        little_stack.settings.read_text().replace('"stop"', '"copy-safe"')
    )
    assert listed(little_stack)["bolt"] == "files"


def test_volumes_of_a_project_in_a_folder_of_the_stack_are_named(little_stack):
    """Its compose file is packed, as it lies in the stack, and its volumes are not."""
    little_stack.runs(pg="postgres:16", red="example/red")
    extra = little_stack.folder / "extra"
    extra.mkdir()
    known = little_stack.tools / "docker.json"
    told = json.loads(known.read_text())
    for each in told:
        each["Config"]["Labels"] = {"com.docker.compose.project.working_dir": str(extra)}
        files = f"/docker/{each['Id']}"
        volume = {"Type": "volume", "Name": f"extra_{each['Id']}", "Source": files}
        each["Mounts"] = [{**volume, "Destination": "/data"}]
    known.write_text(json.dumps(told))
    rule = '[[stack.exclude]]\npath = "volume:extra_red"\nreason = "made anew"\n'
    add(little_stack, rule)
    manifest, _ = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert "NOT COVERED: volume:extra_pg, which container pg mounts at /data" in warning
    known.write_text(known.read_text().replace(str(extra), "/srv/other"))
    told = little_stack.run(f"backup --runtag {TAG} --force")
    assert told.returncode == 0, told.stderr


def test_a_row_that_matches_no_container_is_told(little_stack):
    """A name that is wrong is no secret: told with its number, and by the doctor; no exit code."""
    little_stack.runs(grafana="grafana/grafana")
    add(little_stack, row("grafana", kind="stop"))
    add(little_stack, row("mine", kind="stop", containers=["gone"]))
    add(little_stack, row("old", kind="skip", reason="a cache"))
    told = little_stack.run("services")
    assert told.returncode == 0
    assert told.stderr.splitlines() == [
        "[[services]] number 2 'mine' matches no container of this stack.",
        (
            "[[services]] number 3 'old' matches no container of this stack; volumes/old is still left out."
        ),
    ]
    said = little_stack.run("doctor").stdout
    assert "WARN  settings: [[services]] number 2 'mine' matches no container" in said
    little_stack.runs()
    assert little_stack.run("services").stderr == ""


def test_nextcloud_is_left_out_once(little_stack):
    """The seed's exclusion covers what the table says of Nextcloud and its database."""
    mounts = {"nextcloud_db": [("./volumes/nextcloud/db", "/config")]}
    little_stack.runs(nextcloud="nextcloud", nextcloud_db="iotstack-nextcloud_db", mounts=mounts)
    (little_stack.folder / "volumes/nextcloud_db/data").unlink()
    manifest, names = backed_up(little_stack, code=3)
    assert [each["what"] for each in manifest["left_out"]] == ["volumes/nextcloud/*"]
    assert "./volumes/nextcloud/data" not in names
    first, second = manifest["warnings"]
    assert first.startswith("Container nextcloud (nextcloud) is not covered: left out")
    assert second.startswith("Container nextcloud_db (iotstack-nextcloud_db) is not covered")
    assert '[[services]], name = "nextcloud", kind = "recipe"; or allow in hosts.toml' in first


def test_a_nextcloud_that_is_gone_is_no_mistake_in_hosts_toml(little_stack):
    """Its row says so, as every backup that lacks it proposes."""
    (little_stack.folder / "volumes/nextcloud/html").mkdir(parents=True)
    (little_stack.folder / "volumes/nextcloud/html/index.php").write_text("<?php")
    little_stack.runs(grafana="grafana/grafana")
    add(little_stack, row("nextcloud", kind="skip", reason="it moved"))
    assert "volumes/nextcloud: left out: it moved\n" in little_stack.run("services").stdout
    assert "matches no container" not in little_stack.run("doctor").stdout
    manifest, _ = backed_up(little_stack)
    left_out = {each["what"]: each["reason"] for each in manifest["left_out"]}
    assert (manifest["state"], left_out["volumes/nextcloud/*"]) == ("complete", "it moved")


@pytest.mark.parametrize(
    "rows",
    [
        row("nextcloud", kind="skip", reason="r") + row("nextcloud_db", kind="skip", reason="r"),
        '[[stack.exclude]]\npath = "volumes/nextcloud*"\nreason = "it has a backup of its own"\n',
    ],
)
def test_a_nextcloud_that_its_owner_leaves_out_needs_no_warning(little_stack, rows):
    """A row of its own or an exclusion says that the loss is meant."""
    mounts = {"nextcloud_db": [("./volumes/nextcloud/db", "/config")]}
    little_stack.runs(nextcloud="nextcloud", nextcloud_db="iotstack-nextcloud_db", mounts=mounts)
    add(little_stack, rows)
    assert backed_up(little_stack, code=0)[0]["state"] == "complete"


@pytest.mark.parametrize(
    ("runs", "rows"),
    [
        ({}, ""),  # its containers are gone
        ({"nodered": "nodered/node-red"}, ""),
        ({"cloud": "linuxserver/nextcloud"}, ""),  # another name
        ({"nextcloud": "nextcloud"}, row("nextcloud", kind="stop", paths=["volumes/nextcloud"])),
        ({"all": "vaultwarden"}, ""),  # the folder around it
    ],
)
def test_a_nextcloud_that_is_in_no_part_is_told(little_stack, runs, rows):
    """Whichever container has its folder, or none: in the backup, its manifest and doctor."""
    folder = little_stack.folder / "volumes/nextcloud/html"
    folder.mkdir(parents=True)
    (folder / "index.php").write_text("<?php")
    mounts = {"cloud": "./volumes/nextcloud/html", "nextcloud": "./volumes/nextcloud"}
    mounts = {name: [(mounts.get(name, "./volumes"), "/data")] for name in runs}
    little_stack.runs(**runs, mounts=mounts)
    add(little_stack, rows)
    manifest, names = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert NEXTCLOUD in warning
    assert 'name = "nextcloud", kind = "recipe"' in warning
    assert "./volumes/nextcloud/html" not in names
    told = little_stack.run("services")
    assert (told.returncode, NEXTCLOUD in told.stdout) == (3, True)
    assert re.search(f"NOT COVERED: .*{NEXTCLOUD}", told.stdout)
    told = " ".join(little_stack.run("doctor").stdout.split())
    assert NEXTCLOUD in told
    add(little_stack, '[[stack.exclude]]\npath = "volumes/nextcloud"\nreason = "it may go"\n')
    listed(little_stack, code=0)


def test_an_influxdb_2_by_its_tag_is_one_whatever_it_is_called(little_stack):
    """A container influxdb of version 2 needs no row of hosts.toml."""
    with_influx2(little_stack, "2.7.10", "influxdb", image="influxdb:2.7")
    manifest, _ = backed_up(little_stack, code=0)
    assert set(manifest["parts"]) == {"general", "influxdb2"}


def test_a_skip_that_misses_the_data_is_told(little_stack):
    """A database whose row names other paths than it mounts is copied while it writes."""
    little_stack.runs(logs="mongo:7")
    add(little_stack, row("logs", kind="skip", reason="a cache", paths=["volumes/mongo"]))
    assert "except volumes/logs" in listed(little_stack, code=3)["logs"]
    (warning,) = backed_up(little_stack, code=3)[0]["warnings"]
    assert "except volumes/logs: its row names other paths" in warning


def test_a_database_whose_files_are_excluded_is_no_warning(little_stack):
    """[[stack.exclude]] says as well that it is left out, and why."""
    little_stack.runs(mongo="mongo:7", grafana="grafana/grafana")
    text = '[[stack.exclude]]\npath = "volumes/{}/*"\nreason = "a cache"\n'
    add(little_stack, text.format("mongo") + text.format("grafana"))
    assert listed(little_stack)["mongo"] == "left out: a cache"
    assert listed(little_stack)["grafana"] == "left out: a cache"
    assert backed_up(little_stack)[0]["warnings"] == []


def test_a_stopped_influxdb_is_warned_of_once(little_stack):
    """What is wrong with the one that has a part of its own is told in one place."""
    little_stack.runs(influxdb="influxdb:1.8", second="influxdb:1.8", down=("influxdb",))
    assert listed(little_stack, code=3)["influxdb"].startswith("it is stopped, so its files")
    warnings = backed_up(little_stack, code=3)[0]["warnings"]
    assert [each.partition(":")[0] for each in warnings] == [
        "InfluxDB is not dumped",
        "Container second (influxdb",
    ]
    assert '[influxdb] container = "second"' in warnings[1]


def live_files(little_stack, name="influxdb"):
    """Let data of an InfluxDB lie in the folder of a container; return their path in a part."""
    path = little_stack.folder / f"volumes/{name}/db/data/home/autogen/1/000000001.tsm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("data")
    return f"./{path.relative_to(little_stack.folder)}"


AWAY = {
    "stopped": ({"down": ("influxdb",), "influxdb": "influxdb:1.8"}, "docker start influxdb"),
    "paused": ({"paused": ("influxdb",), "influxdb": "influxdb:1.8"}, "docker unpause influxdb"),
    "gone": ({"nodered": "nodered/node-red"}, "docker compose up -d"),
}


@pytest.mark.parametrize("state", AWAY)
def test_the_files_of_an_influxdb_that_cannot_be_dumped_are_copied(little_stack, state):
    """With a warning that names why, and nothing says that they are in another part."""
    containers, advice = AWAY[state]
    little_stack.runs(mounts={"influxdb": [("./volumes/influxdb/db", DATA)]}, **containers)
    member = live_files(little_stack)
    manifest, names = backed_up(little_stack, code=3)
    assert set(manifest["parts"]) == {"general"}
    assert member in names
    (warning,) = manifest["warnings"]
    assert "copied as they are" in warning
    assert advice in warning
    assert not [e for e in manifest["left_out"] if "in the influx part" in e["reason"]]
    assert not [e for e in manifest["left_out"] if e["what"].startswith("volumes/influxdb")]


def test_the_files_of_influxdb_are_copied_where_docker_does_not_answer(little_stack):
    """Whether they are torn nobody knows: that is a warning, and no reason to have none."""
    member = live_files(little_stack)
    little_stack.tool("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    manifest, names = backed_up(little_stack, code=3)
    assert member in names
    assert set(manifest["parts"]) == {"general"}
    assert [each for each in manifest["warnings"] if "volumes/influxdb" in each]
    assert "in the influx part" not in str(manifest["left_out"])


def test_of_an_influxdb_elsewhere_nothing_in_volumes_influxdb_is_left_out(little_stack):
    """An old folder that no container uses is a folder as any other."""
    little_stack.runs(influxdb="influxdb:1.8", mounts={"influxdb": [("./volumes/flux", DATA)]})
    member = live_files(little_stack)
    assert little_stack.run(f"backup --runtag {TAG}").returncode == 1  # it tells no version
    assert member in members_of_general(little_stack)


def test_what_lies_beside_the_live_files_of_influxdb_is_named(little_stack):
    """All of volumes/influxdb is left out as its live files, which its settings are not."""
    mounts = [("./volumes/influxdb/db", DATA), ("./volumes/influxdb/init", "/init.d")]
    little_stack.runs(influxdb="influxdb:1.8", mounts={"influxdb": mounts})
    (little_stack.folder / "volumes/influxdb/init/users.iql").write_text("x")
    told = little_stack.run("services")
    assert told.returncode == 3
    assert "NOT COVERED: volumes/influxdb/init" in told.stdout
    little_stack.run(f"backup --runtag {TAG}")  # it tells no version
    manifest = little_stack.folder / f"backups/{TAG}.manifest.json"
    warnings = json.loads(manifest.read_text())["warnings"]
    assert [each for each in warnings if "volumes/influxdb/init, which container" in each]
    rule = '[[stack.exclude]]\npath = "volumes/influxdb/init"\nreason = "made anew"\n'
    add(little_stack, rule)
    listed(little_stack)


def test_a_dump_that_could_not_be_made_is_not_said_to_hold_what_is_left_out(little_stack):
    """Live files of one that runs are never copied; where its data are not is told."""
    little_stack.runs(
        influxdb="influxdb:1.8", mounts={"influxdb": [("./volumes/influxdb/db", DATA)]}
    )
    member = live_files(little_stack)
    assert little_stack.run(f"backup --runtag {TAG}").returncode == 1
    assert member not in members_of_general(little_stack)
    manifest = little_stack.folder / f"backups/{TAG}.manifest.json"
    (reason,) = [
        each["reason"]
        for each in json.loads(manifest.read_text())["left_out"]
        if each["what"] == "volumes/influxdb/*"
    ]
    assert reason.endswith("in the influx part, which could not be made")


@pytest.mark.parametrize(
    ("path", "title", "advice"),
    [
        ("postmaster.pid", "PostgreSQL", 'kind = "dump", dump = "postgres"'),
        ("databases/aria_log_control", "MariaDB", 'kind = "dump", dump = "mariadb"'),
        ("dat/db/mongod.lock", "MongoDB", 'kind = "stop", or "skip"'),
        ("nodes/0/node.lock", "Elasticsearch or OpenSearch", 'kind = "stop", or "skip"'),
        ("redis/appendonlydir", "Redis", 'kind = "stop", or "skip"'),
    ],
)
def test_a_server_in_an_image_that_nobody_knows_is_told_by_its_files(
    little_stack, path, title, advice
):
    """UniFi has a MongoDB in it, Immich a PostgreSQL of its own: copied live they may be torn."""
    little_stack.runs(app="example/controller", other="example/other")
    lock = little_stack.folder / "volumes/app" / path
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("123")
    if title == "MariaDB":  # its other files are MySQL's, too
        (lock.parent / "ibdata1").write_text("x")
    manifest, _ = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    place = os.path.relpath(lock.parent, little_stack.folder)
    assert f"app (example/controller) is not covered: {title} keeps its data in {place}" in warning
    assert advice in warning
    told = listed(little_stack, code=3)
    assert told["app"].startswith(f"NOT COVERED: {title}")
    assert "NOT COVERED" not in told["other"]


@pytest.mark.parametrize("why", ["stopped", "skipped", "left out", "ended", "read-only"])
def test_files_of_a_server_that_cannot_be_torn_are_no_alarm(little_stack, why):
    """It does not run, has ended, writes nothing there, or its owner said what is to be done."""
    down = ("app",) if why == "stopped" else ()
    little_stack.runs(app="example/controller", down=down)
    data = little_stack.folder / "volumes/app/db"
    data.mkdir()
    (data / "mongod.lock").write_text("" if why == "ended" else "123")
    if why == "skipped":
        add(little_stack, row("app", kind="skip", reason="made anew"))
    if why == "left out":
        rule = {"path": "volumes/app/db/*", "reason": "made anew"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in rule.items()]
        add(little_stack, "\n".join(["[[stack.exclude]]", *lines, ""]))
    if why == "read-only":
        told = little_stack.tools / "docker.json"
        told.write_text(told.read_text().replace('"Destination"', '"RW": false, "Destination"'))
    backed_up(little_stack)


@pytest.mark.parametrize("image", ["postgres:16", "mariadb:11", "influxdb:2.7", "bolt:1"])
def test_what_is_paused_is_asked_nothing(little_stack, image):
    """Its files are copied as they are at that moment, and a warning names it."""
    name = "influxdb2" if "influxdb" in image else "db"
    little_stack.runs(paused=(name,), **{name: image})
    if image == "bolt:1":
        add(little_stack, row("db", kind="stop"))
    assert listed(little_stack)[name].startswith("it is paused, so its files are copied")
    manifest, names = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert f": container {name} is paused, so its files are copied as they are, and may" in warning
    assert f"`docker unpause {name}`" in warning
    assert f"./volumes/{name}/data" in names
    told = {each["what"]: each["reason"] for each in manifest["left_out"]}
    if image != "bolt:1":
        assert told[f"a dump of {name}"].startswith(f"container {name} is paused, so its files")


def test_what_is_stopped_and_excluded_is_not_said_to_be_copied(little_stack):
    """The owner's own words go first."""
    little_stack.runs(postgres="postgres:16", down=("postgres",))
    add(little_stack, '[[stack.exclude]]\npath = "volumes/postgres/*"\nreason = "too large"\n')
    assert listed(little_stack)["postgres"] == "left out: too large"
    manifest, names = backed_up(little_stack)
    assert "./volumes/postgres/data" not in names
    assert "copied" not in str(manifest["left_out"])


# An InfluxDB 1.x of another name.


def test_the_only_influxdb_of_a_stack_is_the_one_that_is_dumped(little_stack):
    """Without a setting, and whatever it is called; said, and no warning."""
    little_stack.runs(weather="influxdb:1.8", mounts={"weather": [("./volumes/weather", DATA)]})
    assert listed(little_stack)["weather"] == "dumped into the influx part"
    told = little_stack.run(f"backup --runtag {TAG}")
    assert "Cannot read the influxd version of container weather" in told.stderr  # it was asked


@pytest.mark.parametrize(
    "images",
    [
        {"one": "influxdb:1.8", "two": "influxdb:1.7"},
        {"one": "influxdb:2.7"},
        {"one": "influxdb"},  # that does not answer
    ],
)
def test_no_influxdb_is_chosen_where_it_is_not_clear_which(little_stack, images):
    """Several of them, or what may be another version: the advice is told for each."""
    little_stack.runs(**images)
    found = listed(little_stack, code=3)
    assert all(found[name].startswith("NOT COVERED") for name in images)
    warnings = backed_up(little_stack, code=3)[0]["warnings"]
    assert sum(f"Container {name} (" in each for name in images for each in warnings) == len(
        images
    )


def test_a_container_that_the_settings_name_is_the_only_one_meant(little_stack):
    """It may be away for a moment: another one is not taken in its place."""
    add(little_stack, '[influxdb]\ncontainer = "flux"\n')
    little_stack.runs(weather="influxdb:1.8")
    assert listed(little_stack, code=3)["weather"].startswith("NOT COVERED: of all InfluxDBs")


def test_influxdb_2_has_a_part_of_its_own(little_stack):
    """It is dumped and no warning; its live files and dumps are not in the general part."""
    with_influx2(little_stack, "2.7.10")
    assert listed(little_stack)["influxdb2"] == "dumped into the influxdb2 part (experimental)"
    manifest, names = backed_up(little_stack, code=0)
    part = manifest["parts"]["influxdb2"]
    assert part["facts"]["experimental"] is True
    assert part["facts"]["data"] == "volumes/influxdb2/data"
    assert [name for name in names if "influxdb2/" in name] == [
        f"./volumes/influxdb2/{each}"
        for each in ("backup", "config", "config/influx-configs", "data")
    ]
    assert list((little_stack.folder / "volumes/influxdb2/backup").iterdir()) == []
    log = (little_stack.folder / f"backups/{TAG}.backup-log.txt").read_text()
    assert EXPERIMENTAL in log
    assert TOKEN not in log
    shown = little_stack.run(f"show {TAG}").stdout
    assert EXPERIMENTAL in shown
    assert "bucket    home/iot: 1 shards" in shown
    assert little_stack.run("verify").returncode == 0
    assert manifest["parts"]["influxdb2"]["facts"]["buckets"]
    path = little_stack.folder / f"backups/{TAG}.manifest.json"
    whole = path.read_bytes()
    manifest["parts"]["influxdb2"]["facts"]["buckets"] = []
    manifest.pop("sha256")
    path.write_bytes(with_sum(json.dumps(manifest, indent=1)))
    said = little_stack.run("verify")
    assert said.returncode != 0
    assert "buckets" in said.stderr
    path.write_bytes(whole)
    assert "the same buckets" in little_stack.run(f"diff {TAG} {TAG}").stdout


def test_an_influxdb_2_under_another_name(little_stack):
    """A row of hosts.toml says that the container influxdb is one of version 2."""
    with_influx2(little_stack, "2.7.10", "influxdb")
    add(little_stack, row("influxdb", kind="dump", dump="influxdb2"))
    manifest, _ = backed_up(little_stack, code=0)
    assert set(manifest["parts"]) == {"general", "influxdb2"}


def test_what_calls_itself_latest_and_is_influxdb_3_is_not_covered(little_stack):
    """The server itself is asked; each backup warns, and copies the files as they lie."""
    with_influx2(little_stack, "3.2.1")
    manifest, names = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert "InfluxDB 3 has no backup command" in warning
    assert 'kind = "stop"' in warning
    assert set(manifest["parts"]) == {"general"}
    assert "./volumes/influxdb2/data/influxd.bolt" in names


def test_an_influxdb_3_in_the_place_of_influxdb_is_warned_of(little_stack):
    """It does not make the influx part fail: there can be none."""
    little_stack.runs(influxdb="influxdb:3-core")
    (warning,) = backed_up(little_stack, code=3)[0]["warnings"]
    assert warning.startswith("Container influxdb (influxdb:3-core) is not covered: InfluxDB 3")


def test_an_influxdb_2_without_a_token_is_named(little_stack):
    """No dump can be made: its files are copied, all else is made, and what to do is told."""
    with_influx2(little_stack, "2.7.10")
    (little_stack.folder / "volumes/influxdb2/config/influx-configs").write_text('token = ""')
    manifest, names = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    assert warning.startswith("Container influxdb2 (influxdb:latest) is not covered: `influx ")
    assert "INFLUX_TOKEN" in warning
    assert set(manifest["parts"]) == {"general"}
    assert "./volumes/influxdb2/data/influxd.bolt" in names
    assert not [each for each in manifest["left_out"] if "influxdb2 part" in each["reason"]]
    assert listed(little_stack, code=3)["influxdb2"].startswith("NOT COVERED: `influx backup`")


def test_what_a_stopped_service_keeps_elsewhere_is_told(little_stack):
    """Of kind stop only the paths of the row are copied at rest; what else it mounts is named."""
    little_stack.runs(bolt="bolt:1", down=("off",), off="off:1")
    add(little_stack, row("bolt", kind="stop", paths=["volumes/other"]) + row("off", kind="stop"))
    found = listed(little_stack, code=3)
    assert found["bolt"] == (
        "NOT COVERED: its row names no existing path, so volumes/bolt is copied while it runs"
    )
    (little_stack.folder / "volumes/other").mkdir()
    found = listed(little_stack)
    assert found["bolt"] == (
        "stopped while it is copied, except volumes/bolt: its row names other paths"
    )
    assert found["off"] == "it is stopped, so its files are copied as they are"


@pytest.mark.parametrize("image", ["postgres:16", "mariadb:11", "influxdb:2.7"])
def test_a_database_that_is_stopped_is_told_as_copied(little_stack, image):
    """Its files are copied instead of a dump: a warning, and the manifest says that there is none."""
    name = "influxdb2" if "influxdb" in image else "db"
    little_stack.runs(**{name: image}, down=(name,))
    manifest, names = backed_up(little_stack, code=3)
    (warning,) = manifest["warnings"]
    why = f"container {name} is stopped, so its files are copied as they are"
    assert f" is not dumped: {why}. `docker start {name}`" in warning
    told = {each["what"]: each["reason"] for each in manifest["left_out"]}
    assert told[f"a dump of {name}"] == why
    assert set(manifest["parts"]) == {"general"}
    assert f"./volumes/{name}/data" in names
    findings = json.loads(little_stack.run("doctor --json").stdout)
    assert [each["found"] for each in findings if each["name"] == f"container {name}"] == [why]


SERVERS = """\
services:
  db:
    image: mariadb:11
    container_name: db
    volumes: ["./volumes/db:/var/lib/mysql", "./volumes/more:/etc/mysql"]
  pg:
    image: postgres:16
    volumes: ["./volumes/pg:/var/lib/postgresql/data"]
  fresh:
    image: postgres:16
    volumes: ["./volumes/fresh:/var/lib/postgresql/data"]
  off:
    image: postgres:16
    profiles: [later]
    volumes: ["./volumes/off:/var/lib/postgresql/data"]
  mongo:
    image: mongo:7
    volumes: ["./volumes/mongo:/data/db", "named:/data/configdb"]
volumes:
  named:
"""


@pytest.mark.parametrize("answers", [True, False])
def test_databases_without_a_container_are_named(little_stack, answers):
    """As the compose file names them: those that hold files; if Docker is down, each that may run."""
    (little_stack.folder / "docker-compose.yml").write_text(SERVERS)
    for name in ("db", "pg", "off", "mongo"):
        (little_stack.folder / f"volumes/{name}").mkdir()
        (little_stack.folder / f"volumes/{name}/data").write_text("data")
    little_stack.runs(nodered="nodered/node-red")
    if not answers:
        little_stack.tool("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    manifest, names = backed_up(little_stack, code=3)
    assert {f"./volumes/{each}/data" for each in ("db", "pg", "off", "mongo")} <= set(names)
    told = " ".join(manifest["warnings"])
    named = {each for each in ("db", "pg", "off", "mongo", "fresh") if f"files of {each} " in told}
    dumps = {e["what"] for e in manifest["left_out"] if e["what"].startswith("a dump of ")}
    if answers:
        assert named == {"db", "pg"}
        assert "MariaDB is not dumped: no container named db, so the files of db" in told
        assert dumps == {"a dump of db", "a dump of pg"}
    else:
        assert named == {"db", "pg", "off", "mongo"}
        assert "mongo is not stopped for its copy: Docker does not answer" in told
        assert "are inconsistent if it runs and writes. Repair Docker" in told
        assert "NOT COVERED: volume:" in told
        assert dumps == {"a dump of db", "a dump of pg", "a dump of off"}


OF_IT_DOWN = """services:
  nodered: {image: nodered/node-red, volumes: ["./volumes/nodered:/data"]}
  esphome: {image: esphome/esphome, profiles: [lab], volumes: ["./volumes/esphome:/config"]}
  db: {image: mariadb, volumes: ["./volumes/mariadb/db:/config"]}
"""


def test_of_a_stack_that_is_down_the_compose_files_tell(little_stack):
    """Whose folder is whose, what is left out of it, and that nothing of it is there."""
    (little_stack.folder / "docker-compose.yml").write_text(OF_IT_DOWN)
    for name in ("esphome", "esphome/.esphome", "mariadb", "mariadb/db", "old"):
        (little_stack.folder / f"volumes/{name}").mkdir()
        (little_stack.folder / f"volumes/{name}/data").write_text("data")
    little_stack.runs()
    unused = "files, no container uses it"
    told = little_stack.run("services")
    assert told.stderr == ""
    lines = [each.split(": left out: ")[0] for each in told.stdout.splitlines()]
    assert lines == [
        "The stack is down: it has no containers.",
        "volumes/esphome/.esphome/*",
        "volumes/nodered/node_modules/*",  # where the compose file mounts it
        f"volumes/esphome: {unused} now; the compose file uses it for esphome, whose profile is off",
        f"volumes/mariadb: {unused} now; the compose file uses it for db, which is not dumped",
        f"volumes/nodered: {unused} now; the compose file uses it for nodered",
        f"volumes/old: {unused}",
    ]
    little_stack.runs(nodered="nodered/node-red")
    assert "is down" not in little_stack.run("services").stdout


def test_who_may_be_let_in_is_the_doctors_question(little_stack):
    """A row that takes another image for a MariaDB: services says who asks it."""
    little_stack.runs(db="other/image")
    add(little_stack, row("db", containers=["db"], kind="dump", dump="mariadb"))
    told = little_stack.run("services")
    assert told.returncode == 0, told.stderr
    assert "dumped into the mariadb part" in told.stdout
    assert told.stdout.splitlines()[-1].endswith(
        "To check that each database can be dumped: inv doctor"
    )


def test_the_files_of_an_influxdb_come_back_with_the_volumes(little_stack):
    """Those that were copied at rest are put in place; the empty folder of a dump never is."""
    little_stack.runs(nodered="nodered/node-red")
    member = live_files(little_stack)
    path = little_stack.folder / member
    backed_up(little_stack, code=3)
    path.write_text("newer")
    for words, left in (("", "newer"), ("--only influxdb", "newer"), ("--only nodered", "newest")):
        path.write_text(left)
        told = little_stack.run(f"restore --runtag {TAG} --from here --yes {words}")
        assert told.returncode == 0, told.stderr
        assert path.read_text() == ("data" if left == "newer" else left)
    path.unlink()
    told = little_stack.run("backup --runtag empty")
    assert (told.returncode, "volumes/influxdb" in told.stderr) == (3, True)
    path.write_text("newest")
    told = little_stack.run("restore --runtag empty --from here --yes")
    assert (told.returncode, "volumes/influxdb" in told.stderr) == (0, True)
    assert path.read_text() == "newest"


COMPOSE = """include: [parts/mqtt.yaml]
services:
  ha:
    container_name: home_assistant
    image: home-assistant
    build: {context: ./.templates/ha/.}
    env_file: [env/one.vars]
    secrets: [pw]
    volumes: ["./homeassistant:/config", "MEDIA:/media", "cache:/cache"]
secrets: {pw: {file: ./secrets/pw}}
volumes: {cache: {}}
"""
READ = ("parts/mqtt.yaml", "env/one.vars", "secrets/pw", ".templates/ha/Dockerfile")


def with_compose(stack, media="/run/x"):
    """Write what compose reads, and return the data of a container that does not exist."""
    (stack.folder / "docker-compose.yml").write_text(COMPOSE.replace("MEDIA", str(media)))
    for each in (*READ, "homeassistant/configuration.yaml"):
        (stack.folder / each).parent.mkdir(parents=True, exist_ok=True)
        (stack.folder / each).write_text("{}")
    return "homeassistant/configuration.yaml"


def test_what_compose_reads_is_packed_wherever_it_lies_in_the_stack(little_stack):
    """A restore finds the files that compose includes, its secrets, and what images are made of."""
    with_compose(little_stack)
    little_stack.runs(nodered="nodered")
    manifest, names = backed_up(little_stack, code=0)
    assert {f"./{each}" for each in READ} <= {*names}
    assert manifest["parts"]["general"]["facts"]["included"] == [
        ".templates/ha",
        "env/one.vars",
        "homeassistant",
        "parts/mqtt.yaml",
        "secrets/pw",
    ]


def test_what_compose_needs_and_is_not_there_is_told(little_stack):
    """Nothing starts from such a backup, so it ends with 3."""
    with_compose(little_stack)
    little_stack.runs(nodered="nodered")
    (little_stack.folder / "secrets/pw").unlink()
    (warning,) = backed_up(little_stack, code=3)[0]["warnings"]
    assert warning.startswith("NOT COVERED: secrets/pw, which compose needs, does not exist")


def test_a_stack_that_is_down_has_its_data_in_the_backup(little_stack, tmp_path):
    """After `docker compose down` the compose file alone tells where the data lie."""
    (tmp_path / "media").mkdir()
    data = with_compose(little_stack, tmp_path / "media")
    little_stack.runs()
    manifest, names = backed_up(little_stack, code=3)
    assert f"./{data}" in names
    (warning,) = manifest["warnings"]
    assert warning.startswith(f"NOT COVERED: {tmp_path}/media, which container home_assistant")


WITH_VOLUME = """services:
  db: {image: "IMAGE", volumes: ["data:/var/lib/mysql"]}
volumes:
  data: {driver_opts: OPTIONS}
"""


@pytest.mark.parametrize("has_it", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("device", ["./own/d", "${PWD}/own/d", "FOLDER/own/d", "BASE/out"])
def test_a_folder_that_a_volume_stands_for_is_in_the_backup_of_a_stack_that_is_down(
    little_stack, tmp_path, device, has_it
):
    """Or it is named; whether or not Docker knows the volume, which it does not on a new machine."""
    for each in (little_stack.folder / "own/d/file", tmp_path / "out/file"):
        each.parent.mkdir(parents=True)
        each.write_text("data")
    places = (("FOLDER", str(little_stack.folder)), ("BASE", str(tmp_path)))
    for word, place in places:
        device = device.replace(word, place)
    options = {"type": "none", "o": "bind", "device": device}
    text = WITH_VOLUME.replace("OPTIONS", json.dumps(options)).replace("IMAGE", "example/app")
    (little_stack.folder / "docker-compose.yml").write_text(text)
    docker = LittleDocker(little_stack)
    if has_it:  # as it was made: absolute
        docker.volume("iotstack_data", "", key="data")
        (docker.files("iotstack_data") / "file").unlink()
        there = device.replace("${PWD}", str(little_stack.folder))
        there = str(little_stack.folder / there)
        docker.on_device("iotstack_data", **options | {"device": there})
    is_out = device.endswith("/out")
    manifest, names = backed_up(little_stack, code=3 if is_out else 0)
    assert ("./own/d/file" in names) != is_out
    named = [each for each in manifest["warnings"] if f"NOT COVERED: {tmp_path}/out, " in each]
    assert len(named) == is_out
    unused = "own" if is_out else "own/d"
    assert (f"\n{unused}: not backed up" in little_stack.run("services").stdout) == is_out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("{type: nfs, o: 'addr=nas', device: ':/x'}", "its files are not on a disk of this"),
        ("{type: cifs, o: 'password=s3cret', device: //n/x}", "its files are not on a disk of"),
        ("{type: ext4, device: /dev/sdz9}", "Docker mounts its device only while"),
        ("{type: tmpfs, device: tmpfs}", ""),
        ("{o: 'size=1G'}", ""),  # it is as empty as any other that nobody made
        ("{type: none, o: bind, device: /nowhere/x}", ""),  # as a mount of what is not there
    ],
)
def test_what_only_the_compose_file_says_of_a_volume_is_known(little_stack, options, told):
    """After `docker compose down -v` its data lie where they lay."""
    text = WITH_VOLUME.replace("OPTIONS", options).replace("IMAGE", "example/app")
    (little_stack.folder / "docker-compose.yml").write_text(text)
    LittleDocker(little_stack)
    manifest, _ = backed_up(little_stack, code=3 if told else 0)
    named = [told in each for each in manifest["warnings"] if "volume:iotstack_data, " in each]
    assert named == [True] * bool(told)
    left_out = {each["what"] for each in manifest["left_out"]}
    assert ("volume:iotstack_data" in left_out) == ("tmpfs" in options)
    assert "s3cret" not in json.dumps(manifest)


@pytest.mark.parametrize("has_it", [True, False], ids=["known", "unknown"])
def test_a_database_in_a_folder_that_a_volume_stands_for_is_told_of(little_stack, has_it):
    """Its files are copied, and are no dump."""
    place = little_stack.folder / "volumes/db"
    place.mkdir()
    (place / "ibdata1").write_text("x")
    options = {"type": "none", "o": "bind", "device": str(place)}
    text = WITH_VOLUME.replace("OPTIONS", json.dumps(options)).replace("IMAGE", "mariadb")
    (little_stack.folder / "docker-compose.yml").write_text(text)
    docker = LittleDocker(little_stack)
    if has_it:
        docker.volume("iotstack_data", "", key="data")
        (docker.files("iotstack_data") / "file").unlink()
        docker.on_device("iotstack_data", **options)
    manifest, names = backed_up(little_stack, code=3)
    assert "./volumes/db/ibdata1" in names
    assert "MariaDB is not dumped: no container named db" in " ".join(manifest["warnings"])


def test_a_folder_that_a_volume_stands_for_is_known_without_docker(little_stack):
    """Of the others nobody knows where their files lie."""
    (little_stack.folder / "own").mkdir()
    (little_stack.folder / "own/file").write_text("data")
    options = "{type: none, o: bind, device: ./own}"
    text = WITH_VOLUME.replace("OPTIONS", options).replace("IMAGE", "example/app")
    text = text.replace('"data:/var/lib/mysql"', '"data:/d", "other:/o"')
    (little_stack.folder / "docker-compose.yml").write_text(f"{text}  other:\n")
    little_stack.tool("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    manifest, names = backed_up(little_stack, code=3)
    assert "./own/file" in names
    told = [each for each in manifest["warnings"] if "NOT COVERED: volume:" in each]
    assert [each.split()[2] for each in told] == ["volume:iotstack_other"]


def test_a_container_that_the_compose_file_names_is_of_the_stack(little_stack):
    """Its label may name a folder that was moved; one of another stack that is there is not."""
    with_compose(little_stack)
    told = little_stack.tools / "docker.json"
    for label, mine in ((str(little_stack.folder) + "-before", True), ("/usr", False)):
        little_stack.runs(home_assistant="mongo", mounts={"home_assistant": [("/opt/x", "/data")]})
        told.write_text(told.read_text().replace(f'"{little_stack.folder}"', f'"{label}"'))
        rows = json.loads(little_stack.run("services --json").stdout)
        assert [each["image"] for each in rows if each["container"]] == ["mongo"] * mine


def test_the_rows_of_hosts_toml_are_told_by_a_backup(little_stack, monkeypatch):
    """A new machine packs less without them; nothing else of hosts.toml is in a set."""
    monkeypatch.setenv("HOME", little_stack.environment["HOME"])
    (little_stack.folder / "extra  1").mkdir()
    rows = (
        '[[stack.include]]\npath = "extra  1"\n[[stack.include]]\npath = "~/\u00fc"\nrestore_to = "/srv/x"'
        '\n[[stack.exclude]]\npath = "volumes/nodered/*.log"\nreason = "no \\"need\\"\\u2028"\n'
    )
    rows += row("mongo", kind="stop", containers=["m"], paths=["volumes/m", "extra  1"])
    rows += row("portainer-ce", kind="skip", reason="a toy") + row("grafana", kind="copy-safe")
    rows += "leave_out = [{ inside = '/x', reason = 'no' }]\n" + row("home_assistant", data=[])
    rows += row("mine", kind="unsure")
    add(little_stack, rows + '[hooks]\nbefore_backup = [["true", "s3cret"]]\n')
    made = little_stack.run(f"backup --runtag {TAG}")
    assert made.returncode == 3, made.stderr
    text = (little_stack.folder / f"backups/{TAG}.RESTORE.txt").read_text()
    begin, _, _ = text.partition("Warnings of the backup")
    lines = begin[begin.index("[[stack.include]]") :]
    assert "s3cret" not in text
    told, meant = (
        read_settings(tomllib.loads(each), "")
        for each in (lines, little_stack.settings.read_text())
    )
    assert told.services == meant.services
    assert told.stack.exclusions == meant.stack.exclusions
    assert told.stack.inclusions == meant.stack.inclusions
    said = little_stack.run(f"show {TAG}").stdout
    assert '  path = "extra  1"\n' in said
    assert "[[services]]" in said


def test_what_nothing_of_the_stack_uses_is_named_by_all(little_stack):
    """A folder of a service that is gone: no alarm, but backup, manifest, services and doctor say it."""
    (little_stack.folder / "zigbee").mkdir()
    (little_stack.folder / "zigbee/database.db").write_text("x")
    assert little_stack.run("backup --runtag first").returncode == 0
    manifest = json.loads((little_stack.folder / "backups/first.manifest.json").read_text())
    assert (manifest["state"], manifest["unused"]) == ("complete", ["zigbee"])
    words = "Not in the backup, because the stack does not use it: zigbee. A row"
    assert words in (little_stack.folder / "backups/first.backup-log.txt").read_text()
    assert "  zigbee\n" in little_stack.run("show first").stdout
    assert "\n- zigbee\n" in (little_stack.folder / "backups/first.RESTORE.txt").read_text()
    told = little_stack.run("services")
    assert "zigbee: not backed up: the stack does not use it" in told.stdout
    assert words in little_stack.run("doctor").stdout
    add(little_stack, '[[stack.include]]\npath = "zigbee"\n')
    manifest, names = backed_up(little_stack)
    assert manifest["unused"] == []
    assert "./zigbee/database.db" in names


def test_files_that_compose_was_given_are_packed(little_stack):
    """Containers tell by their labels which -f and --env-file they were made from."""
    little_stack.runs(grafana="grafana/grafana")
    folder = little_stack.folder
    for name, text in {
        "more/extra.yml": "services: {z: {image: x, env_file: own/z.env}}",
        "my.variables": "A=1",
        "own/z.env": "B=2",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    known = json.loads((little_stack.tools / "docker.json").read_text())
    known[0]["Config"]["Labels"] |= {
        "com.docker.compose.project.config_files": f"{folder}/docker-compose.yml,more/extra.yml",
        "com.docker.compose.project.environment_file": f"{folder}/my.variables",
    }
    (little_stack.tools / "docker.json").write_text(json.dumps(known))
    manifest, names = backed_up(little_stack)
    assert {"./more/extra.yml", "./own/z.env", "./my.variables"} <= {*names}
    assert manifest["unused"] == []


def test_a_volume_of_the_stack_that_nothing_uses_any_more_is_named(little_stack):
    """That of a service whose lines were taken out, until the owner speaks of it."""
    asked = '"volume ls") case $5 in *=iotstack) echo iotstack_mongo ;; esac ;;'
    little_stack.tool("docker", f'case "$1 $2" in\n{asked}\nesac')
    manifest, _ = backed_up(little_stack)
    assert (manifest["unused"], manifest["state"]) == (["volume:iotstack_mongo"], "complete")
    add(little_stack, '[[stack.exclude]]\npath = "volume:iotstack_mongo"\nreason = "old"\n')
    assert "mongo" not in little_stack.run("doctor").stdout


def test_the_compose_file_may_have_another_name(little_stack):
    """Compose reads COMPOSE_FILE of the folder's .env, and so does a backup."""
    folder = little_stack.folder
    (folder / "docker-compose.yml").rename(folder / "main.yaml")
    told = little_stack.run("backup --runtag x")
    assert told.returncode == 13
    assert "If its compose file has another name, set COMPOSE_FILE in .env" in told.stderr
    (folder / ".env").write_text("COMPOSE_FILE=main.yaml:sub/more\n")
    (folder / "sub").mkdir()
    (folder / "sub/more").write_text("services: {}\n")
    _, names = backed_up(little_stack)
    assert {"./main.yaml", "./.env", "./sub/more"} <= {*names}
    assert "main.yaml, sub/more" in little_stack.run("doctor").stdout


def test_a_container_of_another_stack_is_named(little_stack):
    """Who started one by hand sees that no backup of this stack has it."""
    little_stack.runs(grafana="grafana/grafana", pihole="pihole/pihole", mounts={"pihole": []})
    known = json.loads((little_stack.tools / "docker.json").read_text())
    known[1]["Config"]["Labels"] = {}
    (little_stack.tools / "docker.json").write_text(json.dumps(known))
    told = little_stack.run("services")
    assert told.returncode == 0
    assert "Not part of this stack, so not backed up: pihole\n" in told.stdout


def test_a_skipped_database_is_told_as_skipped(little_stack):
    """What its row says, also where nothing of it would be packed."""
    little_stack.runs(mongo="mongo:7", mounts={"mongo": []})
    add(little_stack, row("mongo", kind="skip", reason="only a cache"))
    assert "only a cache" in listed(little_stack)["mongo"]


def test_a_backup_warns_of_a_row_that_does_nothing(little_stack):
    """A mistyped name is told each night; a container that is away for one night is not."""

    def backup(runtag):
        told = little_stack.run(f"backup --runtag {runtag}")
        return told.returncode, " ".join(told.stderr.split())

    little_stack.runs(nodered="nodered/node-red", mine="example/mine")
    with little_stack.settings.open("a") as stream:
        stream.write('[[services]]\nname = "mine"\nkind = "copy-safe"\n')
    assert backup("first") == (0, "")
    little_stack.runs(
        nodered="nodered/node-red"
    )  # `mine` was removed by hand: the last one had it
    assert "matches no container" not in backup("second")[1]
    with little_stack.settings.open("a") as stream:
        stream.write('[[services]]\nname = "nodred"\nkind = "copy-safe"\n')
        stream.write('[[services]]\nname = "planned"\nkind = "copy-safe"\n')
        stream.write('[[services]]\nname = "gone"\nkind = "skip"\nreason = "no more"\n')
        stream.write('paths = ["volumes/gone"]\n')
    (little_stack.folder / "docker-compose.yml").write_text(
        "services:\n  planned:\n    image: example/planned\n    profiles: [never]\n"
    )
    code, said = backup("third")
    assert code == 3
    assert (
        "[[services]] number 2 'nodred' matches no container of this stack: it has no effect"
        in said
    )
    assert "'planned'" not in said
    assert "'gone'" not in said
    dry = little_stack.run("backup --runtag fourth --dry-run")
    assert "'nodred' matches no container" in " ".join(dry.stderr.split())
    (little_stack.folder / "docker-compose.yml").write_text("services:\n  nodred: [\n")
    code, said = backup("fifth")  # it may well name it
    assert code == 3
    assert "matches no container" not in said
