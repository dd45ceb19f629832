"""Bytes to another machine and back, verified by hash, against `scp`.

    python benchmarks/ssh_bytes.py [MEGABYTES]

The reach: wall ≤ 1.0, up and down. `scp` verifies nothing; our additional time is the verification
(decision 0026). The second rival does the same with plain tools: it syncs and hashes afterwards.
The bytes cannot be compressed; the other machine is an sshd on this one. Each way writes a new
file, after everything written before is on the disk. The file's hash is recorded, as in a backup.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import pairs
from context import Context
from line import address, scp_words
from sshd import Sshd

from iotstack_invoke.backups.transfer import Send, hash_there
from iotstack_invoke.engine.steps import File, Record
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.ssh_connection import Login
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage

NAME = "2026-11-23_1100.influx-backup.tar"
PROVE = 'sync "$1" && sha256sum "$1" > /dev/null'


def run(*words):
    subprocess.run(words, check=True)


def compare_all(login, storage, here, there, back):
    """Compare the way up and the way down, each with both rivals."""
    files = [File("pi", NAME, here), File("nas", NAME, there), File("pi", NAME, back)]
    sha256 = hash_there(LocalHost(here), files[0].absolute)
    records = {str(each): Record(str(each), sha256=sha256) for each in files}
    context = Context(LocalHost(here), records, nas=storage)
    scp, ssh = scp_words(login), Login(login, "nas").words()

    def send(source, target):
        Send(source, target).do(context)
        context.storage(target).rename(target.partial, target.absolute)

    def compare(way, source, target, words, prove):
        copy = f"{target.root}/scp"

        def fresh():
            for each in (target.absolute, copy):
                Path(each).unlink(missing_ok=True)
            os.sync()

        def proven():
            run(*scp, *words(copy))
            run(*prove(copy))

        ours = (f"{way}, proven", lambda: send(source, target))
        plain = (f"scp {way}", lambda: run(*scp, *words(copy)))
        pairs.compare(ours, plain, before=fresh, reach={"wall": 1.0})
        pairs.compare(ours, (f"scp {way}, sync, sha256sum", proven), before=fresh)
        send(source, target)

    def prove(path):
        return ("sh", "-c", PROVE, "sh", path)

    original, copy, _ = files
    compare(
        *("up", original, copy),
        lambda path: (original.absolute, address(login, path)),
        lambda path: (*ssh, shlex.join(prove(path))),
    )
    compare(*("down", *files[1:]), lambda path: (address(login, copy.absolute), path), prove)


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
        storage = vault_storage(VaultConfig("nas", there, login))
        try:
            compare_all(login, storage, here, there, back)
        finally:
            storage.close()
            server.stop()


main()
