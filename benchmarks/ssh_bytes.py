"""Bytes to another machine and back, proven by hash, against `scp`.

    python benchmarks/ssh_bytes.py [MEGABYTES]

The reach: wall ≤ 1.0, up and down. The bytes do not compress; the other machine is an sshd on
this one.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import pairs
from line import address, scp_words
from scene import Scene
from sshd import Sshd

from iotstack_invoke.hosts import LocalHost
from iotstack_invoke.settings import Vault
from iotstack_invoke.steps import File
from iotstack_invoke.transfer import Send
from iotstack_invoke.vaults import vault_place

NAME = "2026-11-23_1100.influx-backup.tar"


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        here, there, back = (f"{top}/{name}" for name in ("here", "there", "back"))
        for each in (here, there, back):
            os.mkdir(each)
        with open(f"{here}/{NAME}", "wb") as stream:
            stream.writelines(os.urandom(1 << 20) for _ in range(megabytes))
        server = Sshd(Path(top) / "sshd")
        login = server.login()
        scp = scp_words(login)
        place = vault_place(Vault("nas", there, login))
        scene = Scene(LocalHost(top), nas=place)

        def send(source, target):
            Send(source, target).do(scene)
            scene.place(target).rename(target.partial, target.absolute)

        here_file, there_file = File("pi", NAME, here), File("nas", NAME, there)
        try:
            pairs.compare(
                ("up, proven", lambda: send(here_file, there_file)),
                (
                    "scp up",
                    lambda: subprocess.run(
                        [*scp, f"{here}/{NAME}", address(login, f"{there}/scp")], check=True
                    ),
                ),
                rounds=5,
            )
            pairs.compare(
                ("down, proven", lambda: send(there_file, File("pi", NAME, back))),
                (
                    "scp down",
                    lambda: subprocess.run(
                        [*scp, address(login, f"{there}/scp"), f"{back}/scp"], check=True
                    ),
                ),
                rounds=5,
            )
        finally:
            place.close()
            server.stop()


main()
