"""Clouds as kinds of places: what rclone serves, reached by rclone; see kinds.py.

Names that are no text, or have line breaks, are stored under others by rclone's own encoding.
"""

import pytest
from cloud import Cloud, require_rclone
from kinds import Kind

from iotstack_invoke.settings import Vault


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
        self.place = self.another()

    def another(self):
        return self.open(Vault("nas", f"cloud:{self.raw.name}", remote="cloud:"))

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


KINDS = {"rclone-webdav": WebdavKind, "rclone-sftp": SftpKind}
