"""A copy that is encrypted on its way into a folder, against a plain one, and against age alone.

    python benchmarks/encrypted_copy.py [MEGABYTES]

Each copy is synced, read back and hashed.
"""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
import pairs
from context import Context

from iotstack_invoke.backups.transfer import Send
from iotstack_invoke.engine.steps import File
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage

NAME = "2026-11-23_1100.general-backup.tar.gz"


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    words = ["age-keygen"]
    public = subprocess.run(words, check=True, capture_output=True, text=True).stderr.split()[-1]
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        with open(f"{top}/{NAME}", "wb") as stream:
            stream.writelines(os.urandom(1 << 20) for _ in range(megabytes))
        send = Send(File("pi", NAME, top), File("usb", NAME, f"{top}/usb"))
        os.mkdir(f"{top}/usb")

        def copy(recipients):
            storage = vault_storage(VaultConfig("usb", f"{top}/usb", recipients=recipients))
            return lambda: send.do(Context(LocalHost(top), usb=storage))

        age = ["age", "-r", public, "-o", f"{top}/alone.age", f"{top}/{NAME}"]
        alone = ("age alone", lambda: subprocess.run(age, check=True))
        encrypted = ("encrypted copy", copy((public,)))
        pairs.compare(encrypted, ("plain copy", copy(())))
        pairs.compare(encrypted, alone)


main()
