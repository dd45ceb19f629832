"""The demo: it shows what it says, and has nothing to do with the stack of whoever runs it."""

import json

import pytest

# A Docker with the owner's stack, which writes down what it is asked.
DOCKER = """echo "$*" >> "$0.asked"
case "$1 $2" in
"ps --all") echo influxdb nodered ;;
"inspect --type") cat "$0.json" ;;
"image inspect") echo '[]' ;;
"volume ls") case "$*" in *=iotstack) echo iotstack_nextdata ;; esac ;;
"volume inspect") echo '[]' ;;
esac"""
ASKS = ("ps --all", "inspect --type", "image", "volume ls", "volume inspect", "version", "compose")


@pytest.fixture
def owner(little_stack):
    """A machine on which a project named iotstack runs."""
    folder = "/home/pi/IOTstack"
    labels = {
        "com.docker.compose.project": "iotstack",
        "com.docker.compose.project.working_dir": folder,
    }
    found = [
        {
            "Id": name,
            "Name": f"/{name}",
            "Image": "sha256:aaa",
            "State": {"Running": True},
            "Config": {"Image": image, "Labels": labels},
            "Mounts": [{"Source": f"{folder}/volumes/{name}", "Destination": "/data"}],
        }
        for name, image in (("influxdb", "influxdb:1.8"), ("nodered", "nodered/node-red"))
    ]
    little_stack.tool("docker", DOCKER)
    (little_stack.tools / "docker.json").write_text(json.dumps(found))
    return little_stack


@pytest.mark.parametrize("more", [{}, {"COMPOSE_PROJECT_NAME": "iotstack"}, {"COMPOSE_FILE": ""}])
def test_the_demo_sees_nothing_of_the_real_stack(owner, more):
    """No volume or container of the owner's project is told, asked of, or touched."""
    if "COMPOSE_FILE" in more:
        (owner.folder / "docker-compose.yml").write_text("name: iotstack\nservices: {}\n")
        more = {"COMPOSE_FILE": str(owner.folder / "docker-compose.yml")}
    owner.environment |= more
    told = owner.run("demo")
    assert told.returncode == 0, told.stderr
    said = told.stdout + told.stderr
    assert "The whole backup is verified, from" in said
    assert "NOT COVERED" not in said  # a first reader would take its advice for a task
    assert "Without InfluxDB, which the demo does not need: no image here. Optional: " in said
    assert not [each for each in said.splitlines() if each.startswith("   ")]
    assert "iotstack_" not in said
    assert str(owner.folder) not in said
    asked = (owner.tools / "docker.asked").read_text().splitlines()
    assert [each for each in asked if not each.startswith(ASKS)] == []
    assert [
        each for each in asked if each.startswith("volume") and "iotstack-demo-" not in each
    ] == []
