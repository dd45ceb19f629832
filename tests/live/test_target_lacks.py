"""A machine that lacks what the backup's had: all that can run does, and the rest is named."""

import contextlib
import re
import shutil
import time

import pytest
from marks import Posted
from owner import PROGRAM
from restorer import running
from stand_machine import UIDS, USER

IDLE = "nodered:stand"
STACK = """\
services:
  one:
    container_name: nodered
    image: IDLE
    volumes: ["./volumes/nodered:/data"]
  two:
    container_name: zigbee2mqtt
    image: IDLE
    volumes: ["./volumes/zigbee2mqtt/data:/app/data"]
    devices: ["STICK:/dev/ttyACM0"]
  three:
    container_name: telegraf
    image: IDLE
    depends_on: [two]
"""
INFLUX = """\
  four:
    container_name: influxdb
    image: influxdb:1.6
    volumes: ["./volumes/influxdb/data:/var/lib/influxdb", "./backups/influxdb/db:/var/lib/influxdb/backup"]
    devices: ["STICK:/dev/ttyACM0"]
"""
UNSTEADY = """\
services:
  one:
    container_name: nodered
    image: IDLE
    volumes: ["./volumes/nodered:/data"]
  two:
    container_name: zigbee2mqtt
    image: IDLE
    restart: unless-stopped
    command: ["sh", "-c", "sleep 1; exit 1"]
  three:
    container_name: telegraf
    image: IDLE
    healthcheck: {test: ["CMD", "false"], interval: 1s, retries: 1}
"""


class Pi(Posted):
    """A stack on a machine with a stick in it, and a program that restores there from anywhere."""

    def __init__(self, machine, text, asking, **kw):
        self.stick = machine.home_of(USER) / "stick"
        super().__init__(
            machine, text.replace("IDLE", IDLE).replace("STICK", str(self.stick)), **kw
        )
        self.asking = asking
        self.flows = self.top / "volumes/nodered/flows.json"
        self.plug()

    def plug(self):
        self.machine.run(["mknod", self.stick, "c", "1", "3"])

    def unplug(self):
        self.stick.unlink(missing_ok=True)

    def over(self, folder):
        """Carry a folder over to who restores this machine."""
        there = self.asking.home_of(USER) / folder.name
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(folder, there)
        for path in (there, *there.iterdir()):
            shutil.chown(path, UIDS[USER], UIDS[USER])
        return there

    def set(self, text=""):
        super().set(text)
        home = self.asking.home_of(USER)
        (home / "far.toml").write_text('[[hosts]]\nname = "test-pi"\nhost = "test-pi"\n')

    def asked(self, *words, code):
        """Run the program where somebody sits who restores this machine."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file)}
        if self.asking is not self.machine:
            words = (*words, "--host", "test-pi")
            env = {"IOTSTACK_SETTINGS": str(self.asking.home_of(USER) / "far.toml")}
        done = self.asking.run([*PROGRAM, *words], user=USER, env=env, check=False)
        said = " ".join(f"{done.stdout}{done.stderr}".split())
        assert done.returncode == code, said
        assert "Traceback" not in said
        return said

    def restored(self, *words, code, source="here"):
        return self.asked(
            *("restore", "--runtag", "t", "--from", source, "--yes", *words), code=code
        )


@pytest.fixture(params=["here", "there"])
def make(request, pi):
    """Make a stack on this Pi or on another, restored from this one; gone afterwards."""
    machine = pi if request.param == "here" else request.getfixturevalue("far")
    with contextlib.ExitStack() as stack:

        def made(text, **kw):
            one = Pi(machine, text, pi, **kw)
            stack.callback(one.remove)
            stack.callback(one.unplug)
            one.lay_out()
            one.start()
            one.machine.run(["sh", "-c", f"echo old > {one.flows}"])
            assert one.run("backup", "--runtag", "t")[0] == 0
            one.machine.run(["sh", "-c", f"echo new > {one.flows}"])
            return one

        yield made


LACKS = "Container zigbee2mqtt could not be started: error gathering device information"


def test_hardware_that_is_gone(make):
    """All is restored and what can be started is; and so it is undone. With --strict: nothing."""
    pi = make(STACK)
    pi.unplug()
    said = pi.restored(code=3)
    assert LACKS in said
    assert str(pi.stick) in said
    assert "t is restored" in said
    assert pi.flows.read_text() == "old\n"
    assert running(pi.machine) == {"nodered", "telegraf"}
    said = pi.asked("undo", "--last-restore", "--yes", code=3)
    assert LACKS in said
    assert pi.flows.read_text() == "new\n"
    assert running(pi.machine) == {"nodered", "telegraf"}
    pi.plug()
    pi.machine.run(["docker", "start", "zigbee2mqtt"])
    pi.unplug()
    said = pi.restored("--strict", code=1)
    assert f"The stack is in its previous state. {LACKS}" in said
    assert pi.flows.read_text() == "new\n"
    assert running(pi.machine) == {"nodered", "telegraf"}
    assert not (pi.top / "backups/.journal").exists()
    said = pi.restored("--strict", code=0)  # what did not run is not expected to
    assert pi.flows.read_text() == "old\n"


@pytest.mark.parametrize("make", ["here"], indirect=True)
@pytest.mark.parametrize("version", [1, 2])
def test_hardware_that_a_new_machine_has_not(make, version):
    """Both Composes: what they leave out with it is brought up."""
    pi = make(STACK, version=version)
    plugin = pi.machine.home_of(USER) / ".docker/cli-plugins/docker-compose"
    with contextlib.ExitStack() as without:
        if version == 1:
            plugin.rename(plugin.with_suffix(".away"))
            without.callback(plugin.with_suffix(".away").rename, plugin)
        usb = pi.carry_away("t")
        pi.unplug()
        said = pi.restored(code=3, source=str(usb))
    assert LACKS in said
    assert pi.flows.read_text() == "old\n"
    assert running(pi.machine) == {"nodered", "telegraf"}


def test_a_database_that_does_not_come_up_is_undone(make):
    """Its new data are proven by nobody's use: all is as before, and the reason is told."""
    pi = make(STACK + INFLUX)
    pi.unplug()
    said = pi.restored(code=1)
    assert "Container influxdb could not be started: error gathering device information" in said
    assert "The stack is in its previous state. " in said
    assert pi.flows.read_text() == "new\n"
    assert running(pi.machine) == {"nodered", "telegraf"}
    pi.plug()
    pi.machine.run(["docker", "start", "influxdb", "zigbee2mqtt"])
    pi.restored(code=0)
    assert pi.flows.read_text() == "old\n"


def test_a_container_that_did_not_stay_up_before(make):
    """It is named, as is one that was unhealthy, nothing is undone, and nobody waits for it for minutes."""
    pi = make(UNSTEADY)
    began = time.monotonic()
    said = pi.restored(code=3)
    assert time.monotonic() - began < 100
    assert re.search(r"Container zigbee2mqtt .*(keep running|keeps restarting it)", said)
    assert "as before the restore" in said
    assert "unhealthy before, and still unhealthy: telegraf" in said
    assert "not healthy after" not in said
    assert pi.flows.read_text() == "old\n"
    assert "nodered" in running(pi.machine)


def test_a_new_machine_in_one_command(make):
    """With --bare: without a folder for the stack, or with a compose file that somebody tried."""
    pi = make(STACK)
    usb = pi.carry_away("t")
    if pi.asking is pi.machine:
        (pi.top / "docker-compose.yml").write_text("services: {}\n")
    else:
        pi.top.rmdir()
        usb = pi.over(usb)
    pi.restored("--bare", code=0, source=str(usb))
    assert running(pi.machine) == {"nodered", "telegraf", "zigbee2mqtt"}
    assert pi.flows.read_text() == "old\n"
    pi.asked("undo", "--last-restore", "--yes", code=0)
    assert running(pi.machine) == set()
    assert not pi.flows.exists()
