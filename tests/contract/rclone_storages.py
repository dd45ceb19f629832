"""Clouds as kinds of places: what rclone serves, reached by rclone; see storages.py.

Names that are no text, or have line breaks, are stored under others by rclone's own encoding.
"""

import threading
import uuid

import pytest
from bucket import S3, know
from cloud import Cloud, require_rclone
from contexts import until
from storages import Kind

from iotstack_invoke.settings.model import VaultConfig


class WebdavKind(Kind):
    """A cloud that keeps no dates, tells no free space, and has no word for a full disk."""

    served = "webdav"
    odd_names = False
    keeps_dates = False
    looks_anew = False
    follows = False

    def __init__(self, folder, _servers):
        require_rclone()
        super().__init__(folder)
        self.cloud = Cloud(folder / "cloud", self.served, self.disk)
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("RCLONE_CONFIG", str(self.cloud.settings))
        self.storage = self.another()

    def another(self):
        return self.open(VaultConfig("nas", f"cloud:{self.raw.name}", remote="cloud:"))

    def close(self):
        self.cloud.stop()
        self.patch.undo()
        super().close()

    def cut(self):
        self.cloud.stop()
        self.cloud.start()

    def go(self):
        self.cloud.stop()

    def come_back(self):
        self.cloud.start()

    def sessions(self):
        return None


class SftpKind(WebdavKind):
    """A cloud that tells its free space; a rename there replaces what has the name."""

    served = "sftp"


AWAY_S = 2.0
"""How long a line is broken that is cut: rclone tries again for less."""


class S3Kind(Kind):
    """A bucket: no folders, no halves, no rename, no room that ends; and nothing is listed twice."""

    odd_names = False
    odd_files = False
    keeps_dates = False
    follows = False
    halves = False
    many_sets = 250

    def __init__(self, folder, servers):
        if "s3" not in servers:
            servers["s3"] = S3(folder)
        self.s3 = servers["s3"]
        self.raw = self.s3.make_bucket(f"contract-{uuid.uuid4().hex}") / "far away"
        self.patch = pytest.MonkeyPatch()
        know(self.patch, self.s3.settings)
        self.storages = []
        self.storage = self.another()

    def another(self):
        return self.open(VaultConfig("nas", f"s3:{self.raw.bucket}/{self.raw.key}", remote="s3:"))

    def close(self):
        for storage in self.storages:
            storage.close()
        self.come_back()
        self.patch.undo()

    def spelt(self, name):
        return name.replace(";", ",")  # moto copies no object of such a name

    def needs_a_disk(self):
        pytest.skip("a bucket is never full")

    def until_begun(self, partial, arrived=0):
        before = self.s3.line.passed_bytes
        until(lambda: self.s3.line.passed_bytes > before + 100_000)

    def cut(self):
        self.go()
        threading.Timer(AWAY_S, self.come_back).start()

    def go(self):
        self.s3.line.open = False
        self.s3.line.cut()

    def come_back(self):
        self.s3.line.open = True

    def sessions(self):
        return None


KINDS = {"rclone-webdav": WebdavKind, "rclone-sftp": SftpKind, "rclone-s3": S3Kind}
