"""Clouds as `rclone serve` plays them: real servers of a folder, on free ports of the loopback."""

import os
import secrets
import shutil
import socket
import subprocess

import pytest
from contexts import until
from ports import free_port

KINDS = ("webdav", "sftp")
# How long the server believes its own listing. WebDAV's lists anew for each entry where it does not;
# SFTP's does not see what it failed to write while it does.
BELIEVES = {"webdav": "1s", "sftp": "50ms"}
ENTRY = {
    "webdav": "type = webdav\nurl = http://127.0.0.1:{port}\nvendor = other\n",
    "sftp": "type = sftp\nhost = 127.0.0.1\nport = {port}\n",
}


def require_rclone():
    """Skip where there is no rclone; where CI promised one, fail."""
    if shutil.which("rclone"):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("rclone is not installed")
    pytest.skip("rclone is not installed")


class Cloud:
    """One server of one folder, and a file with rclone's settings that knows it as `cloud:`."""

    def __init__(self, folder, kind, files=None):
        folder.mkdir()
        self.kind = kind
        self.files = files or folder / "files"
        self.files.mkdir(exist_ok=True)
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.settings = folder / "rclone.conf"
        self.log = folder / "log"
        self.know(self.password)
        self.process = None
        self.start()

    def know(self, password):
        """Write rclone's settings, with this password."""
        hidden = subprocess.run(
            ["rclone", "obscure", "-"], input=password, text=True, capture_output=True, check=True
        ).stdout
        self.settings.touch(mode=0o600)
        entry = ENTRY[self.kind].format(port=self.port)
        self.settings.write_text(
            f"[cloud]\n{entry}user = pi\npass = {hidden}\n"
            f"[disk]\ntype = alias\nremote = {self.files}\n"
        )

    def start(self):
        """Let the server answer. What is put beneath it is seen a second later at the latest."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(
                        "rclone",
                        "serve",
                        self.kind,
                        self.files,
                        f"--dir-cache-time={BELIEVES[self.kind]}",
                    ),
                    *(f"--addr=127.0.0.1:{self.port}", f"--config={self.settings}"),
                ],
                env={**os.environ, "RCLONE_USER": "pi", "RCLONE_PASS": self.password},
                stderr=log,
            )
        until(self._answers)

    def _answers(self):
        if self.process.poll() is not None:
            pytest.fail(self.log.read_text())
        with socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True

    def stop(self):
        """Take it away at once, as a machine goes that loses its power."""
        self.process.kill()
        self.process.wait(10)
