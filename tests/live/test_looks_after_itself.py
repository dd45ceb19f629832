"""From `init` on a new machine to an alarm: a systemd, a broker, Home Assistant, Prometheus, InfluxDB.

All of them are real. Each trouble is one message, however often it comes, and its end another.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request

import folders
import pytest
from booted import USER as PERSON
from booted import Booted, NoMachineError, make_tree
from contexts import until
from home_assistant import HomeAssistant
from listeners import Listener, in_network
from person import Person
from rootfs import accounts, import_image, rootfs_tar
from stand import DOORS, compose, query, wait_ping
from stand_machine import PATH, USER

NAME = "cellar"
"""Of the Pi: systemd-nspawn takes it from the folder."""
CLONE = f"/home/{PERSON}/iotstack-invoke"
PROGRAM = f"{CLONE}/.venv/bin/iotstack"
SOURCES = "/srv"
"""Of the program and of what it needs: the machine has no line to the internet."""
SENSOR, PROBLEM = f"sensor.backup_of_{NAME}", f"binary_sensor.backup_of_{NAME}_problem"
HOSTS = f"/home/{PERSON}/.config/iotstack/hosts.toml"
WAIT = "/var/tmp/wait"
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime"
METRICS = "/var/lib/metrics"
SETUP = f"git clone -q {SOURCES}/iotstack-invoke.git {CLONE} && cd {CLONE} && sh setup"
"""As README says."""
COMPOSE = """
services:
  influxdb:
    container_name: influxdb
    image: "influxdb:1.6"
    restart: unless-stopped
    ports: ["127.0.0.1:8086:8086"]
    environment: [INFLUXDB_HTTP_AUTH_ENABLED=false, INFLUXDB_MONITOR_STORE_ENABLED=FALSE]
    volumes: ["./volumes/influxdb/data:/var/lib/influxdb"]
  mosquitto:
    container_name: mosquitto
    image: "eclipse-mosquitto:stand"
    restart: unless-stopped
    ports: ["127.0.0.1:1883:1883"]
    volumes: ["./volumes/mosquitto/config:/mosquitto/config"]
  nodered:
    container_name: nodered
    image: "nodered:stand"
    restart: unless-stopped
    volumes: ["./volumes/nodered/data:/data"]
"""
MORE = f"""
[metrics]
textfile = "{METRICS}/iotstack.prom"
influxdb = true

[hooks]
before_backup = [["sh", "-c", "while [ -e {WAIT} ]; do touch {WAIT}-begun; sleep 0.1; done"]]
"""
PROMETHEUS = """
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: node
    static_configs: [{targets: ["127.0.0.1:9100"]}]
"""


def bring_sources(folder):
    """Put the last commit, and the wheels of all packages that it needs, into a folder."""
    folder.mkdir(exist_ok=True)
    clone = ["git", "clone", "-q", "--bare", folders.CHECKOUT, folder / "iotstack-invoke.git"]
    wheels = [sys.executable, "-m", "pip", "wheel", "-q", "-w", folder / "wheels"]
    for words in (clone, [*wheels, folders.CHECKOUT, "setuptools"]):
        subprocess.run(words, check=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 1000, 1000)  # git reads a repository of one's own alone


class Home:
    """The house: a Pi with a stack, a NAS, a phone, Home Assistant and Prometheus."""

    def __init__(self, stand, folder):
        self.stand = stand
        self.engine = stand.add("home", engine=True)
        self.engine.may_log_in_to(stand.nas, DOORS)
        self.network = f"/proc/{self.engine.pid}/ns/net"
        self.inside = ("nsenter", f"--target={self.engine.pid}", "--net")
        self.stack = self.engine.user_home / "IOTstack"
        self.phone = Listener(network=self.network)
        self._running = []
        self._make_stack()
        self.pi = self._make_pi(folder / NAME)
        self.home_assistant = HomeAssistant(1883, before=self.inside)
        self._start_prometheus(folder)

    def _make_stack(self):
        rootfs = rootfs_tar("mosquitto", ["mosquitto"], folders={}, files=accounts(mosquitto=1883))
        command = ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
        import_image(self.engine, rootfs, "eclipse-mosquitto:stand", cmd=command)
        for each in ("influxdb/data", "mosquitto/config", "nodered/data"):
            (self.stack / "volumes" / each).mkdir(parents=True)
        conf = self.stack / "volumes/mosquitto/config/mosquitto.conf"
        conf.write_text("listener 1883\nallow_anonymous true\n")
        (self.stack / "volumes/nodered/data/flows.json").write_text("[]\n")
        (self.stack / "docker-compose.yml").write_text(COMPOSE)
        (self.stack / "backups").mkdir()
        for path in (self.stack, *self.stack.rglob("*")):
            os.chown(path, 1000, 1000)
        self.engine.run(["mount", "-t", "tmpfs", "-o", "size=4m,uid=1000", "tmpfs", self.backups])
        compose(self.engine, "up", "-d", user=USER)
        wait_ping(self.engine)

    @property
    def backups(self):
        return self.stack / "backups"

    def _make_pi(self, tree):
        """A small Debian with git and Python, where the program is set up; the Docker is the engine's."""
        make_tree(tree, more=("git", "python3-venv"))
        bring_sources(tree / SOURCES[1:])
        with (tree / "etc/group").open("a") as stream:
            stream.write(f"docker:x:998999:{PERSON}\n")
        shutil.copytree(self.engine.user_home / ".ssh", tree / f"home/{PERSON}/.ssh")
        (tree / METRICS[1:]).mkdir()
        for path in (*(tree / f"home/{PERSON}").rglob("*"), tree / METRICS[1:]):
            os.chown(path, 1000, 1000)
        shared = ("/usr/bin/docker", FAKETIME)
        words = ("--bind=/run/docker.sock", f"--bind={self.stack}:{self.stack}:rbind")
        pi = Booted(tree, shared=shared, words=words, before=self.engine.enter()).start()
        offline = ("PIP_NO_INDEX=1", f"PIP_FIND_LINKS={SOURCES}/wheels")
        pi.run("sh", "-c", SETUP, user=PERSON, environment=offline, limit_s=600)
        return pi

    def _start_prometheus(self, folder):
        (folder / "prometheus.yml").write_text(PROMETHEUS)
        exporter = ["prometheus-node-exporter", "--collector.disable-defaults"]
        exporter += [
            "--collector.textfile",
            f"--collector.textfile.directory={folder}/{NAME}{METRICS}",
        ]
        exporter += ["--web.listen-address=127.0.0.1:9100"]
        server = ["prometheus", f"--config.file={folder}/prometheus.yml"]
        server += [f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:9090"]
        for words in (exporter, server):
            with (folder / f"{words[0]}.log").open("wb") as log:
                self._running.append(
                    subprocess.Popen([*self.inside, *words], stdout=log, stderr=log)
                )

    def stop(self):
        self.pi.stop()
        self.home_assistant.remove()
        for each in self._running:
            each.terminate()
            each.wait(30)
        self.phone.close()

    def prometheus(self, expression):
        """The values of an expression now."""
        words = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:9090/api/v1/query?{words}"

        def ask():
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]

        return [float(each["value"][1]) for each in in_network(self.network, ask)]

    def run(self, *words, check=True, environment=()):
        """Run the program on the Pi."""
        return self.pi.run(
            PROGRAM, *words, user=PERSON, check=check, environment=environment, limit_s=300
        )

    def systemctl(self, *words, check=True):
        runtime = ("XDG_RUNTIME_DIR=/run/user/1000",)
        words = ("systemctl", "--user", *words)
        return self.pi.run(*words, user=PERSON, environment=runtime, check=check, limit_s=300)

    def does(self, task):
        """Let systemd start a task, as its timer does, and wait until it has ended."""
        unit = f"iotstack-{task}.service"
        self.systemctl("reset-failed", unit, check=False)  # some starts in 10 s are no loop here
        return self.systemctl("start", unit, check=False).returncode

    def does_well(self, task):
        """Let it do a task that ends well."""
        code = self.does(task)
        words = ("journalctl", "--user", f"--unit=iotstack-{task}", "--lines=30", "--no-pager")
        runtime = ("XDG_RUNTIME_DIR=/run/user/1000",)
        assert code == 0, self.pi.run(*words, user=PERSON, environment=runtime).stdout

    is_killed = False
    """Each run is killed while it works."""

    def tries(self):
        """Let a backup run as its timer starts it."""
        if not self.is_killed:
            self.does("backup")
            return
        unit, wait = "iotstack-backup.service", self.pi.tree / WAIT[1:]
        begun = wait.with_name(f"{wait.name}-begun")
        wait.touch()
        self.systemctl("reset-failed", unit, check=False)
        self.systemctl("start", "--no-block", unit)
        until(begun.exists)
        self.systemctl("kill", "--signal=KILL", "--kill-who=main", unit)
        until(lambda: "failed" in self.systemctl("is-active", unit, check=False).stdout)
        wait.unlink()
        begun.unlink()
        telling = ("list-units", "--no-legend", "--state=activating", "iotstack-failed@*")
        until(lambda: not self.systemctl(*telling).stdout)
        until(lambda: self.pi.run("pgrep", "-f", WAIT, check=False).returncode)

    @property
    def titles(self):
        """What the phone showed, the oldest first."""
        return [each["title"] for each in self.phone.heard if each["path"] == "/phone"]

    def messages(self, first):
        """The messages from one on, for people who look for a fault here."""
        heard = [each for each in self.phone.heard if each["path"] == "/phone"]
        return "\n\n".join(f"{each['title']}\n{each['body']}" for each in heard[first:])

    def shows(self, entity):
        return self.home_assistant.state(f"sensor.backup_of_{NAME}_{entity}")


def require_programs():
    """Raise NoMachineError if one is missing."""
    programs = ("prometheus", "prometheus-node-exporter", "faketime", "mosquitto")
    missing = [each for each in programs if not shutil.which(each, path=PATH)]
    if missing:
        raise NoMachineError(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def home(stand, tmp_path_factory):
    try:
        require_programs()
        made = Home(stand, tmp_path_factory.mktemp("home"))
    except NoMachineError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    yield made
    made.stop()


def test_a_person_answers_five_questions(home):
    """The stack and the NAS are found; the first backup is made, and the rest is set up."""
    words = home.pi.enter(PERSON, ("TERM=dumb", "XDG_RUNTIME_DIR=/run/user/1000"))
    asks = Person([*words, PROGRAM, "init"], {"PATH": os.environ["PATH"]})
    asks.sees("Where is the stack?")
    asks.sees("Number [1]: ")
    asks.types("")
    asks.sees("Where do second copies go?")
    before = asks.sees("Number [")
    number = next(line.split()[0] for line in before.splitlines() if "nas-user, over" in line)
    asks.sees("]: ")
    asks.types(number)
    asks.sees("The folder there")
    asks.sees("]: ")
    asks.types("")
    asks.sees("Which backups stay")
    asks.sees("Number [1]: ")
    asks.types("")
    asks.sees("[03:00]: ")
    asks.types("")
    asks.sees("Where are problems")
    asks.sees("Number [")
    asks.sees("]: ")
    asks.types("2")
    asks.sees("The address")
    asks.sees("]: ")
    asks.types(f"{home.phone.url}/phone")
    assert "ssh nas-user mkdir -p backups/iotstack" in asks.sees("Run this now? [Y/n] ")
    asks.types("")
    seen = asks.sees("Write it? [Y/n] ")
    assert "shown    in Home Assistant, through mosquitto" in seen
    asks.types("")
    asks.sees("Make the first backup now? [Y/n] ")
    asks.types("y")
    assert asks.ends() == 0, asks.shown
    assert "is complete" in asks.shown, asks.shown
    assert home.titles == []


def test_it_is_seen(home):
    """In Home Assistant at once; in Prometheus and InfluxDB when the owner has asked for these."""
    home.home_assistant.wait(PROBLEM, "off")
    home.home_assistant.wait(f"{SENSOR}_result_of_the_last_run", "success")
    first = home.shows("last_good_backup")
    assert home.shows("last_good_backup_in_nas_user") == first
    with (home.pi.tree / HOSTS[1:]).open("a") as stream:
        stream.write(MORE)
    home.does_well("backup")
    until(lambda: home.shows("last_good_backup") != first, 60)
    until(lambda: home.prometheus("iotstack_backup_problems") == [0, 0], 60)
    (databases,) = query(home.engine, "SHOW DATABASES")
    assert ["iotstack_backup"] in databases[0]["values"]
    assert home.titles == []


def test_it_rehearses(home):
    """As it does each week: Home Assistant shows when a restore last succeeded."""
    assert home.shows("verified_by_a_restore") == "unknown"
    home.does_well("rehearse")
    until(lambda: home.shows("verified_by_a_restore") != "unknown", 60)
    assert home.titles == []


@contextlib.contextmanager
def killed(home):
    """Each run is killed while it works."""
    home.is_killed = True
    try:
        yield
    finally:
        home.is_killed = False


@contextlib.contextmanager
def full(home):
    """Nothing more can be written where the backups are."""
    fill = home.backups / "fill"
    home.engine.run(["sh", "-c", 'dd if=/dev/zero of="$1" bs=4k 2>/dev/null; true', "sh", fill])
    try:
        yield
    finally:
        home.engine.run(["rm", fill])


@contextlib.contextmanager
def without_nas(home):
    """The NAS answers nobody."""
    home.stand.nas.cut()
    try:
        yield
    finally:
        home.stand.nas.mend()


@contextlib.contextmanager
def without_broker(home):
    """The stack's Mosquitto does not run."""
    home.engine.run(["docker", "stop", "mosquitto"])
    try:
        yield
    finally:
        home.engine.run(["docker", "start", "mosquitto"])


@pytest.mark.parametrize(
    ("trouble", "title"),
    [
        (killed, "backup of cellar did not end: it was killed"),
        (full, "backup of cellar was refused before anything was changed"),
        (without_nas, "backup of cellar finished with warnings"),
        (without_broker, "cellar: Home Assistant was not updated"),
    ],
)
def test_each_trouble_is_one_message_and_its_end_another(home, trouble, title):
    """Three runs with it are one message: a phone that rings each night is not looked at."""
    home.does_well("backup")
    before = len(home.titles)
    with trouble(home):
        for _ in range(3):
            home.tries()
            home.does("monitor")
    told = home.titles[before:]
    assert len(told) == 1, home.messages(before)
    assert title in told[0]
    home.does_well("backup")
    home.does("monitor")
    assert len(home.titles) == before + 2, home.messages(before)
    home.home_assistant.wait(PROBLEM, "off")


def test_the_journal_has_what_failed(home):
    """With its level: journalctl finds the troubles alone."""
    words = ("journalctl", "--user", "--unit=iotstack-backup", "--output=cat", "--no-pager")
    runtime = ("XDG_RUNTIME_DIR=/run/user/1000",)
    told = home.pi.run(*words, "--priority=err", user=PERSON, environment=runtime).stdout
    assert "has 0 bytes free, and this backup needs" in told
    assert "<3>" not in told


def test_no_backup_for_days_is_one_message(home):
    """The clock is three days ahead, and no backup was made: the timers were stopped."""
    before = len(home.titles)
    later = (f"LD_PRELOAD={FAKETIME}/libfaketime.so.1", "FAKETIME=+3d")
    for _ in range(3):
        assert home.run("monitor", check=False, environment=later).returncode == 3
    assert len(home.titles) == before + 1, home.messages(before)
    told = home.titles[-1]
    assert told == "cellar: No good backup was made here for 26 h"


def test_a_pi_that_is_off_is_unavailable(home):
    """Home Assistant shows it by itself; when the Pi is on again, all is well."""
    path = home.pi.tree / HOSTS[1:]
    path.write_text(path.read_text().replace("[mqtt]", '[mqtt]\nsilent_after = "1min"'))
    assert home.run("monitor").returncode == 0
    home.home_assistant.wait(PROBLEM, "off")
    before = len(home.titles)
    home.pi.stop()
    home.home_assistant.wait(PROBLEM, "unavailable")
    path.write_text(path.read_text().replace('[mqtt]\nsilent_after = "1min"', "[mqtt]"))
    home.pi.start()
    assert home.run("monitor").returncode == 0
    home.home_assistant.wait(PROBLEM, "off")
    assert len(home.titles) == before
