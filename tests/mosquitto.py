"""A real Mosquitto on a free port of the loopback, with settings of its own."""

import os
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from datetime import timedelta

import pytest
from contexts import until
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from ports import free_port

from iotstack_invoke.settings.monitoring import MqttConfig
from iotstack_invoke.settings.secret import Secret

CONFIG = MqttConfig(
    "", 1883, "", Secret(), tls=False, ca_file="", prefix="homeassistant",
    silent_after=timedelta(hours=26), allow_start=False,
)  # fmt: skip
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def require_mosquitto():
    """Skip where there is no Mosquitto; where CI promised one, fail."""
    if MOSQUITTO and shutil.which("mosquitto_passwd") and shutil.which("openssl"):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("mosquitto and openssl are not installed")
    pytest.skip("mosquitto and openssl are not installed")


class Mosquitto:
    """One broker. `login`: the user and password that it asks for; `tls`: it encrypts.

    `rules`: its access list.
    """

    def __init__(self, folder, *, login=(), tls=False, rules=""):
        folder.mkdir()
        self.port = free_port()
        self.log = folder / "log"
        self.certificate = folder / "certificate.pem"
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(not login).lower()}"]
        if os.geteuid() == 0:
            lines.insert(0, "user root")
        if login:
            words = ["mosquitto_passwd", "-b", "-c", folder / "passwords", *login]
            subprocess.run(words, check=True, capture_output=True)
            lines.append(f"password_file {folder}/passwords")
        if rules:
            (folder / "acl").write_text(rules)
            (folder / "acl").chmod(0o600)
            lines.append(f"acl_file {folder}/acl")
        if tls:
            key = folder / "key.pem"
            words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
            name = [
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ]
            words += [*name, "-keyout", key, "-out", self.certificate]
            subprocess.run(words, check=True, capture_output=True)
            lines += [f"certfile {self.certificate}", f"keyfile {key}"]
        (folder / "mosquitto.conf").write_text("\n".join([*lines, ""]))
        self._settings = folder / "mosquitto.conf"
        self.process = None
        self.start()

    def start(self):
        """Start it, with nothing of before."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [MOSQUITTO, "-v", "-c", self._settings], stdout=log, stderr=log
            )
        until(self._answers)

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        """End it."""
        self.process.terminate()
        self.process.wait(10)


def retained(server, *topics, login=(), certificate=None, seconds=0.3):
    """Return the messages that a broker keeps, by topic; a topic may have wildcards."""
    found = {}
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = lambda _client, _data, each: found.setdefault(each.topic, each)
    client.on_connect = lambda *_: client.subscribe([(each, 1) for each in topics])
    if login:
        client.username_pw_set(*login)
    if certificate:
        client.tls_set(certificate)
    client.connect("127.0.0.1", server.port)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        client.loop(0.05)
    client.disconnect()
    client.on_connect = client.on_message = None  # its sockets are closed with its last holder
    return found


class OldBroker:
    """Stands before a broker, and speaks no MQTT 5, as Mosquitto before 1.6.

    `politely`: it says so; otherwise it only closes the connection.
    """

    def __init__(self, port, *, politely=True):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                first = self.request.recv(65536)
                if first[8] == 5:  # after the fixed header of two bytes and the name MQTT
                    if politely:
                        self.request.sendall(b"\x20\x02\x00\x01")
                    return
                with socket.create_connection(("127.0.0.1", port)) as behind:
                    behind.sendall(first)
                    other = threading.Thread(target=copy, args=(behind, self.request), daemon=True)
                    other.start()
                    copy(self.request, behind)
                    other.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def copy(source, target):
    """Pass on what one side says, to its end."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
