"""A real Home Assistant, in a venv of its own that the first test makes (800 MB on disk, two minutes).

It knows a broker, and a component of ours that writes all states to a file after each change, and
presses the button that another file names.
"""

import fcntl
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from contexts import until
from ports import free_port

VERSION = "2025.4.4"
PACKAGES = (
    f"homeassistant=={VERSION}",
    "home-assistant-frontend==20250411.0",
    "paho-mqtt==2.1.0",
    "hassil",
    "PyTurboJPEG",
)
"""What it would fetch at its start."""
COMPONENT = """
import asyncio, json, os
from homeassistant.core import callback
from homeassistant.const import EVENT_STATE_CHANGED

async def async_setup(hass, config):
    folder = hass.config.config_dir
    def write():
        told = {
            each.entity_id: {"state": each.state, "attributes": dict(each.attributes)}
            for each in hass.states.async_all()
        }
        with open(f"{folder}/states.new", "w") as stream:
            json.dump(told, stream, default=str)
        os.replace(f"{folder}/states.new", f"{folder}/states.json")
    @callback
    def changed(event):
        write()
    hass.bus.async_listen(EVENT_STATE_CHANGED, changed)
    async def press():
        while True:
            await asyncio.sleep(0.1)
            if os.path.exists(f"{folder}/press"):
                with open(f"{folder}/press") as stream:
                    name = stream.read()
                os.remove(f"{folder}/press")
                await hass.services.async_call("button", "press", {"entity_id": name})
    hass.async_create_background_task(press(), "press")
    return True
"""
ENTRY = {
    "created_at": "2026-01-01T00:00:00+00:00",
    "data": {},
    "disabled_by": None,
    "discovery_keys": {},
    "domain": "mqtt",
    "entry_id": "0123456789abcdef",
    "minor_version": 2,
    "modified_at": "2026-01-01T00:00:00+00:00",
    "options": {"discovery": True, "discovery_prefix": "homeassistant"},
    "pref_disable_new_entities": False,
    "pref_disable_polling": False,
    "source": "user",
    "subentries": [],
    "title": "broker",
    "unique_id": None,
    "version": 1,
}


def python_313():
    """The path of a Python that Home Assistant runs on; or skip, in CI fail."""
    homes = {Path.home(), Path(pwd.getpwuid(os.geteuid()).pw_dir)}  # HOME may be another one
    own = [path for home in homes for path in home.glob(".pyenv/versions/3.13*/bin/python")]
    asked = ["python3.13", *sorted(own)]
    for each in filter(None, map(shutil.which, asked)):
        words = [each, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 13))"]
        if not subprocess.run(words, check=False, capture_output=True).returncode:
            return each
    if os.environ.get("CI") == "true":
        pytest.fail("Home Assistant needs Python 3.13")
    pytest.skip("Home Assistant needs Python 3.13")


def installed():
    """Return the program of Home Assistant; the first call installs it for all later ones."""
    cache = os.environ.get("XDG_CACHE_HOME") or f"{Path.home()}/.cache"
    folder = Path(cache) / f"iotstack-invoke-tests/homeassistant-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            python = python_313()
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([python, "-m", "venv", folder], check=True)
            words = [folder / "bin/pip", "install", "--quiet", *PACKAGES]
            subprocess.run(words, check=True)
            (folder / "ready").touch()
    return folder / "bin/hass"


class HomeAssistant:
    """One that runs, with some automations. `before`: the words before its program."""

    def __init__(self, broker_port, automations=(), before=()):
        self._before = before
        self.folder = Path(tempfile.mkdtemp(prefix="home-assistant-"))
        data = {**ENTRY, "data": {"broker": "127.0.0.1", "port": broker_port, "protocol": "5"}}
        self._store("core.config_entries", {"entries": [data]}, minor_version=5)
        settings = {"homeassistant": {"name": "Test"}, "http": {"server_port": free_port()}}
        settings |= {"http": {**settings["http"], "server_host": "127.0.0.1"}, "tell": {}}
        settings["automation"] = list(automations)
        (self.folder / "configuration.yaml").write_text(json.dumps(settings))  # JSON is YAML
        component = self.folder / "custom_components/tell"
        component.mkdir(parents=True)
        (component / "__init__.py").write_text(COMPONENT)
        told = {"domain": "tell", "name": "Tell", "version": "1.0.0", "dependencies": ["mqtt"]}
        told |= {"codeowners": [], "documentation": "https://example.com", "requirements": []}
        (component / "manifest.json").write_text(json.dumps(told))
        self.process = None
        self.start()

    def _store(self, key, data, **more):
        path = self.folder / ".storage" / key
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"version": 1, **more, "key": key, "data": data}))

    def start(self):
        """Start it."""
        (self.folder / "states.json").unlink(missing_ok=True)
        with (self.folder / "out").open("ab") as out:
            words = [
                *self._before,
                installed(),
                "--config",
                self.folder,
                "--skip-pip",
                "--log-no-color",
            ]
            self.process = subprocess.Popen(words, stdout=out, stderr=out)

    def stop(self):
        """End it."""
        self.process.terminate()
        self.process.wait(60)

    def remove(self):
        """End it, and leave nothing."""
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def states(self):
        """All states by entity, each with its attributes; {} before the first one."""
        assert self.process.poll() is None, (self.folder / "out").read_text()
        try:
            return json.loads((self.folder / "states.json").read_text())
        except FileNotFoundError:
            return {}

    def state(self, entity):
        """The state of an entity, None if there is no such."""
        return self.states.get(entity, {}).get("state")

    def wait(self, entity, state, limit_s=90):
        """Wait until an entity has a state."""
        try:
            until(lambda: self.state(entity) == state, limit_s)
        except AssertionError:
            log = (self.folder / "home-assistant.log").read_text()[-3000:]
            known = {name: each["state"] for name, each in self.states.items()}
            raise AssertionError(f"{entity} is {self.state(entity)}\n{known}\n{log}") from None

    def press(self, entity):
        """Press a button."""
        (self.folder / "press.new").write_text(entity)
        (self.folder / "press.new").rename(self.folder / "press")

    def complaints(self):
        """What it dislikes about MQTT."""
        lines = (self.folder / "home-assistant.log").read_text().splitlines()
        return [line for line in lines if "mqtt" in line and re.search("ERROR|WARNING", line)]
