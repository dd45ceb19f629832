"""The general part of another machine, packed on this machine, against packing it there.

    python benchmarks/far_general_part.py [MEGABYTES]

tar's stream comes here, is compressed and hashed, and goes back; the rival compresses on the other
machine. The other machine is this one behind an sshd. On a slower machine, or over a slower
connection, each side's share grows.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import corpus
import pairs
from context import Context
from sshd import Sshd

from iotstack_invoke.archives.pack import PackStack, tar_words
from iotstack_invoke.engine.steps import File
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.hosts.ssh_connection import Login


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        folder = f"{top}/IOTstack"
        corpus.make(folder, megabytes=megabytes)
        server = Sshd(Path(top) / "sshd")
        login = Login(server.login(), "far")
        members = ("./docker-compose.yml", "./services", "./volumes")
        output = File("pi", "ours.tar.gz", top)
        step = PackStack(output, tar_words((), folder), members, 3600)
        there = shlex.join(("tar", "-cf", "-", "-C", folder, *members))
        try:
            for level in (1, 6):
                packed = f"{there} | gzip -{level} | tee {top}/there.tar.gz | sha256sum"
                words = (*login.words(), packed)
                pairs.compare(
                    ("through this machine", lambda: step.do(Context(SshHost(login, top)))),
                    (
                        f"gzip -{level} there",
                        lambda words=words: subprocess.run(
                            words, check=True, stdout=subprocess.DEVNULL
                        ),
                    ),
                    rounds=3,
                )
                ratio = os.path.getsize(output.partial) / os.path.getsize(f"{top}/there.tar.gz")
                print(f"size: {ratio:.3f}")
        finally:
            login.close()
            server.stop()


main()
