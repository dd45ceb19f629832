"""All templates of IOTstack in one stack: whatever is planted is in an archive, or named."""

import json
import tomllib
from pathlib import Path

import pytest
from database_images import INFLUX2_IMAGE
from marks import Posted

TABLE = Path(__file__).resolve().parent / "templates.toml"
ENV = "MARIADB_ROOT_PASSWORD=t00r\nPOSTGRES_PASSWORD=p\n"


def compose_of(services):
    """The compose file of some templates, with what a server needs to start; and no devices."""
    told = {}
    for name, each in services.items():
        row = {"container_name": each.get("container", name), "restart": "unless-stopped"}
        row |= {key: each[key] for key in ("image", "build", "volumes") if key in each}
        if name == "zerotier-router":  # it cannot run beside the client
            del row["container_name"]
        if each.get("build", "").endswith("/mariadb/."):
            row["environment"] = [
                "PUID=1000",
                "PGID=1000",
                "MYSQL_ROOT_PASSWORD=${MARIADB_ROOT_PASSWORD:?}",
            ]
        if name in ("postgres", "timescaledb"):
            row["environment"] = [
                "POSTGRES_USER=u",
                "POSTGRES_PASSWORD=${POSTGRES_PASSWORD:?}",
                "POSTGRES_DB=d",
            ]
            row["stop_signal"] = "SIGINT"
        if name == "influxdb2":
            row["environment"] = ["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN=my-super-secret-auth-token"]
        told[name] = row
    return json.dumps({"version": "3.6", "services": told}, indent=2)


@pytest.fixture(scope="module")
def posted(pi, stand, databases):
    """A running stack of all templates, and the marks in it."""
    services = tomllib.loads(TABLE.read_text())
    files = {".env": ENV}
    for each in services.values():
        if (folder := each.get("build", "https:")) and not folder.startswith("https:"):
            files[f"{folder.removeprefix('./').removesuffix('/.')}/Dockerfile"] = (
                "FROM nodered:stand\n"
            )
    version = 2 if stand.compose_v2 else 1
    built = [
        f"iotstack{'-_'[version == 1]}{name}" for name, each in services.items() if "build" in each
    ]
    made = Posted(
        pi,
        compose_of(services),
        files=files,
        version=version,
        built=built,
        plays={"influxdb:latest": INFLUX2_IMAGE},
    )
    made.marks = made.lay_out()
    made.start()
    made.marks += made.plant()
    yield made
    made.remove()


def test_all_templates(posted):
    """Every mark is in an archive or named, and of Nextcloud alone the owner is warned."""
    assert len(posted.inspect()) == len(tomllib.loads(TABLE.read_text()))
    code, said = posted.run("backup", "--runtag", "t", timeout=600)
    lost = {
        mark: posted.named(mark, "t", said)
        for mark in posted.marks
        if not posted.packed(mark, "t")
    }
    assert [str(mark) for mark, why in lost.items() if not why] == []
    for container in ("nextcloud", "nextcloud_db"):  # until the owner chooses how it is saved
        assert f"Container {container} " in said
    assert (code, said.count("\n  Container "), said.count("NOT COVERED")) == (3, 2, 0), said
