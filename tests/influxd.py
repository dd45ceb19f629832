"""A real InfluxDB 1 on a free port of the loopback, with data of its own."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
from contexts import until
from ports import free_port

INFLUXD = shutil.which("influxd")


def require_influxd():
    """Skip where there is no InfluxDB; where CI promised one, fail."""
    if INFLUXD:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("influxd is not installed")
    pytest.skip("influxd is not installed")


class Influxd:
    """One server. `login`: it asks for one, and has an administrator with these words."""

    def __init__(self, folder, *, login=()):
        folder.mkdir()
        self.port = free_port()
        self._log = folder / "log"
        self.login = ()
        environment = {
            **os.environ,
            "INFLUXDB_META_DIR": f"{folder}/meta",
            "INFLUXDB_DATA_DIR": f"{folder}/data",
            "INFLUXDB_DATA_WAL_DIR": f"{folder}/wal",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{free_port()}",
            "INFLUXDB_HTTP_AUTH_ENABLED": str(bool(login)).lower(),
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [INFLUXD, "-config", os.devnull], stdout=log, stderr=log, env=environment
            )
        until(self._answers)
        if login:
            self.ask("CREATE USER \"{}\" WITH PASSWORD '{}' WITH ALL PRIVILEGES".format(*login))
            self.login = login

    def _answers(self):
        assert self.process.poll() is None, self._log.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5):
            return True

    def ask(self, text, **query):
        """Return the results of statements; an error is raised."""
        login = urllib.parse.urlencode(dict(zip("up", self.login, strict=False)))
        body = urllib.parse.urlencode({"q": text, **query}).encode()
        address = f"http://127.0.0.1:{self.port}/query?{login}"
        with urllib.request.urlopen(address, body, timeout=20) as answer:
            results = json.load(answer)["results"]
        assert not [each for each in results if "error" in each], results
        return results

    def rows(self, text):
        """Return the rows of one statement's series, each as a mapping, with its tags."""
        series = self.ask(text, db="iotstack_backup", epoch="s")[0].get("series", ())
        return [
            {**each.get("tags", {}), **dict(zip(each["columns"], values, strict=True))}
            for each in series
            for values in each["values"]
        ]

    def stop(self):
        """End it."""
        self.process.terminate()
        self.process.wait(30)
