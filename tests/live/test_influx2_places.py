"""InfluxDB 2 of a stack that mounts nothing for dumps, as posted by somebody with ioBroker.

The server is a stand-in; the engine that dumps are read through, and put back by hand, is real.
"""

import re
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from database_images import INFLUX2_IMAGE
from marks import Posted, shape
from owner import PROGRAM
from stand_machine import USER, wait_for

TOKEN = (
    "    image: influxdb:2.7\n",
    "    image: influxdb:2.7\n    environment: [INFLUX_TOKEN=secret-operator]\n",
)
INCLUDED = '[[stack.include]]\npath = "{}/mnt/appdata/iobroker/data"\n'


@pytest.fixture
def posted(pi, databases):
    """Make the stack; it is gone afterwards. `changes` are what its compose file says otherwise."""
    made = []

    def make(*changes):
        elsewhere = pi.home_of(USER) / "elsewhere"
        text = shape("iobroker", elsewhere)
        for change in changes:
            assert change[0] in text
            text = text.replace(*change)
        kw = {"settings": INCLUDED.format(elsewhere), "plays": {"influxdb:2.7": INFLUX2_IMAGE}}
        stack = Posted(pi, text, away=(elsewhere,), folders=(), **kw)
        made.append(stack)
        stack.lay_out()
        stack.start()
        return stack

    yield make
    for each in made:
        each.remove()


def held_in(pi, folder):
    return pi.run(["docker", "exec", "influxdb", "find", folder, "-type", "f"]).stdout.split()


def test_without_a_folder_for_dumps(posted, pi):
    """It is dumped all the same; nothing of a dump stays in its container, killed or not."""
    stack = posted(TOKEN)
    pi.run(["docker", "exec", "influxdb", "touch", "/slow"])
    env = {"IOTSTACK_SETTINGS": str(stack.settings_file)}
    words = [*PROGRAM, "backup", "--runtag", "killed"]
    process = pi.popen(words, user=USER, env=env, stdout=subprocess.DEVNULL)
    folder = "/var/lib/backup/killed/backup"
    there = ["docker", "exec", "influxdb", "ls", folder]
    wait_for("the dump", lambda: "manifest" in pi.run(there, check=False).stdout)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    pi.run(["docker", "exec", "influxdb", "rm", "/slow"])
    code, said = stack.run("backup", "--runtag", "t")
    assert code == 0, said
    assert "secret-operator" not in said
    assert held_in(pi, "/var/lib/backup") == []
    with tarfile.open(stack.top / "backups/t.influxdb2-backup.tar") as archive:
        names = set(archive.getnames())
    assert {"./data/influxd.bolt", "./data/influxd.sqlite", "./config"} <= names
    assert any(re.fullmatch(r"\./backup/.*\.manifest", each) for each in names)
    assert stack.run("verify")[0] == 0


def test_it_comes_back_by_hand_through_docker(posted, pi):
    """The commands that a restore tells put it into an empty container, and nothing beside it."""
    stack = posted(TOKEN)
    data = Path(stack.away[0], "mnt/appdata/influxdb2")
    assert stack.run("backup", "--runtag", "t")[0] == 0
    (data / "newer").write_text("what was there")
    code, said = stack.run("restore", "--runtag", "t", "--from", "here", "--yes")
    assert code == 3, said
    told = (stack.top / "backups/t.RESTORE.txt").read_text()
    steps = [*dict.fromkeys(re.findall(r"^  ((?:docker|sudo|until) .*)$", said, re.MULTILINE))]
    assert len(steps) > 8
    assert all(each.split("t.influxdb2")[0] in told for each in steps)
    shutil.copy2(stack.top / "backups/t.influxdb2-backup.tar", stack.top)
    script = "set -e\n" + "\n".join(steps).replace("sudo ", "")
    script = script.replace("docker compose", "docker-compose")
    pi.run(["sh", "-c", script], cwd=stack.top)
    (aside,) = data.parent.glob("influxdb2.before-*")
    assert (aside / "newer").exists()
    assert not (data / "newer").exists()
    held = [path.rpartition("/")[2] for path in held_in(pi, "/var/lib/influxdb2")]
    assert "influxd.bolt" in held
    assert [each for each in held if each.endswith(".tar.gz")]
    assert not list(stack.top.glob("influxdb2-dump*"))


def test_without_a_token_it_is_named(posted):
    """All else is made; its token cannot be guessed, and where to put it is told."""
    stack = posted()
    code, said = stack.run("backup", "--runtag", "t")
    assert code == 3, said
    assert "Container influxdb (influxdb:2.7) is not covered" in said
    assert "INFLUX_TOKEN" in said
    made = {path.name.split(".")[1] for path in (stack.top / "backups").glob("t.*.tar*")}
    assert {"general-backup", "outside-backup"} <= made
    assert "influxdb2-backup" not in made
