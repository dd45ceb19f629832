"""Stacks as people post them: all that was planted into them is back on a bare machine, or named."""

import shutil

import pytest
from database_images import INFLUX2_IMAGE
from marks import Posted, shape
from stand_machine import USER

ENVS = {
    "services/mariadb/mariadb.env": "MYSQL_ROOT_PASSWORD=root\n",
    "services/postgres/postgres.env": "POSTGRES_USER=u\nPOSTGRES_PASSWORD=p\nPOSTGRES_DB=d\n",
}
SPECIAL = {
    "iobroker": {"plays": {"influxdb:2.7": INFLUX2_IMAGE}},
    "mysql": {"version": 2},  # docker-compose 1 does not know its create_host_path
    "old-gcgarner": {"files": ENVS},
}


@pytest.fixture
def posted(pi, databases):
    """Make a stack of a shape; it is gone afterwards."""
    made = []

    def make(name, settings=""):
        elsewhere = pi.home_of(USER) / "elsewhere"
        text = shape(name, elsewhere)
        # Docker makes what is not there, as root.
        kw = {"away": (elsewhere,), "folders": ("backups",) if "./backups" in text else ()}
        kw |= {"settings": settings.replace("ELSE", str(elsewhere)), **SPECIAL.get(name, {})}
        made.append(Posted(pi, text, **kw))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def around(stack):
    """Plant marks, back up, restore onto the bare machine: what is in no part must be named.

    Return how the backup ended, and what holds each mark that is lost.
    """
    marks = stack.lay_out()
    stack.start()
    marks += stack.plant()
    code, said = stack.run("backup", "--runtag", "t")
    packed = [mark for mark in marks if stack.packed(mark, "t")]
    lost = {mark: stack.named(mark, "t", said) for mark in marks if mark not in packed}
    assert [str(mark) for mark, why in lost.items() if not why] == [], said
    assert code == 3 or "warned" not in lost.values(), said
    usb = stack.carry_away("t")
    restored, told = stack.run("restore", "--runtag", "t", "--from", str(usb), "--yes")
    assert restored in (0, 3), told
    for container, kind in stack.servers().items():
        stack.wait(container, kind)
    assert {str(mark): why for mark in packed if (why := stack.back(mark))} == {}
    return code, {why: mark for mark, why in lost.items()}


def test_another_machine_gets_its_volumes(posted, pi, far):
    """Over SSH a bare machine gets all of it, the named volume into a folder of its own engine."""
    stack = posted("usb-drive", settings='[[hosts]]\nname = "test-pi"\nhost = "test-pi"\n')
    marks = stack.lay_out()
    stack.start()
    marks += stack.plant()
    good, said = stack.run("backup", "--runtag", "t")
    assert good == 0, said
    stack.compose("down")
    shutil.rmtree(*stack.away)  # the machines of the stand share their file system
    there = Posted(far, stack.text, folders=())
    there.remove()
    there.tag_images()
    try:
        good, said = stack.run(
            "restore",
            "--runtag",
            "t",
            "--from",
            str(stack.top / "backups"),
            "--host",
            "test-pi",
            "--yes",
        )
        assert good == 0, said
        for container, kind in there.servers().items():
            there.wait(container, kind)
        assert {str(mark): why for mark in marks if (why := there.back(mark, pi))} == {}
    finally:
        there.remove()


INCLUDED = '[[stack.include]]\npath = "ELSE/{}"\n'
DEFAULTS = {"old retained messages, which every subscriber would be sent after a restore"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("weather", '[influxdb]\ncontainer = "weather_influxdb"\n'),
        (
            "opt",
            "".join(
                map(INCLUDED.format, ["opt/mosquitto", "opt/zigbee2mqtt", "opt/homeassistant"])
            ),
        ),
        ("usb-drive", ""),
        ("own-network", ""),
        ("env-files", ""),
    ],
)
def test_all_is_back(posted, name, settings):
    """Nothing is lost but what the defaults leave out, and no warning is needed."""
    code, lost = around(posted(name, settings))
    assert (code, set(lost) - DEFAULTS) == (0, set())


@pytest.mark.parametrize("name", ["iobroker", "opt", "mysql", "old-gcgarner"])
def test_what_is_lost_is_named(posted, name):
    """What no part holds is named before anything is lost, and the backup ends with 3."""
    code, _ = around(posted(name))
    assert code == 3
