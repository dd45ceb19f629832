"""A far end that reads a file right once, and otherwise the next time: a disk that fails, or lies.

What hashes there, and what reads, is a program that lies first along the PATH of a real sshd.
Whatever comes of a second reading is believed by nobody, and costs no byte of what was there.
"""

import os
import shlex

import pytest
from contexts import LittleStack
from remote_stacks import Laptop, Pi

TAG = "2026-11-30_0900"
ARCHIVE, MANIFEST = f"{TAG}.general-backup.tar.gz", f"{TAG}.manifest.json"
HASH_OF_NOTHING = "e3b0c44298fc1c14"
HASHES = f"""#!/bin/sh
told=$(PATH=/usr/bin:/bin sha256sum) || exit
case $told in
{HASH_OF_NOTHING}*) ;;
*)  if grep -q "${{told%% *}}" {{seen}}; then told=$(echo "$told" | tr 0-9a-f 1-9a-f0)
    else echo "$told" >> {{seen}}; fi ;;
esac
echo "$told"
"""
"""In the place of `openssl`, which is asked first for what it makes of nothing."""
READS = """#!/bin/sh
PATH=/usr/bin:/bin
if [ -f "$1" ] && grep -qxF "$1" {seen}; then exec tr '\\000' '\\001' < "$1"; fi
echo "$1" >> {seen}
exec cat "$@"
"""
"""In the place of `cat`: the second time as many bytes, and others."""


class Twice:
    """A folder of programs of which each does a thing right once."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = folder / "seen"
        folder.mkdir(exist_ok=True)
        self.seen.touch()

    def put(self, name, script):
        (self.folder / name).write_text(script.replace("{seen}", shlex.quote(str(self.seen))))
        (self.folder / name).chmod(0o755)

    def mend(self):
        """Let them be right from now on."""
        for name in ("openssl", "cat"):
            (self.folder / name).unlink(missing_ok=True)


def content_of(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir() if TAG in each.name}


def said(told, code):
    """Return what a command told in words with single blanks, that ended with this code."""
    text = told.stdout + told.stderr
    assert told.returncode == code, text
    assert "Traceback" not in text
    return " ".join(text.split())


@pytest.fixture
def nas(tmp_path, start_sshd):
    """A little stack with a vault on another machine, whose programs may be put in place."""
    stack = LittleStack(tmp_path / "little")
    stack.twice = Twice(tmp_path / "twice")
    stack.vault = tmp_path / "nas"
    stack.vault.mkdir()
    ssh = start_sshd("sshd", path=f"{stack.twice.folder}:{os.environ['PATH']}").login()
    with stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "nas"\nkind = "ssh"\nhost = "{ssh.host}"\nport = {ssh.port}\n'
            f'user = "{ssh.user}"\nkey = "{ssh.key}"\nssh_config = "{ssh.config}"\n'
            f'known_hosts = "{ssh.known_hosts}"\nfolder = "{stack.vault}"\n'
        )
    stack.here = stack.folder / "backups"
    return stack


def test_a_vault_that_hashes_otherwise_the_second_time_is_not_believed(nas):
    """Its copy is told as damaged, in vain sent anew, and stays; right again, it is good again."""
    nas.twice.put("openssl", HASHES)
    said(nas.run(f"backup --runtag {TAG}"), 0)
    made = nas.twice.seen.read_text()
    there, here = content_of(nas.vault), content_of(nas.here)
    assert {ARCHIVE, MANIFEST} <= set(there)
    for told in (nas.run(f"verify --runtag {TAG} --at nas") for _ in range(2)):
        assert f"The SHA-256 of {ARCHIVE} is " in said(told, 1)
        assert f"{TAG} in nas is damaged" in said(told, 1)
    assert nas.twice.seen.read_text() == made  # what it told was another hash than before
    assert "damaged in nas" in said(nas.run("list"), 3)
    assert f"nas: {TAG} is damaged" in said(nas.run("status"), 2)
    assert f"{ARCHIVE}.partial on nas differs from what was sent" in said(nas.run("sync"), 3)
    assert "0 of 1 sets were removed" in said(nas.run("prune --at nas --keep 1"), 0)
    assert content_of(nas.vault).items() >= there.items()
    assert all(content_of(nas.here)[name] == here[name] for name in (ARCHIVE, MANIFEST))
    nas.twice.mend()
    assert f"{TAG} in nas is good" in said(nas.run(f"verify --runtag {TAG} --at nas"), 0)
    assert "damaged" not in said(nas.run("list"), 0)


def test_a_vault_that_reads_otherwise_the_second_time_restores_nothing(nas):
    """What comes is compared with the manifest, also when the same archive was right before."""
    said(nas.run(f"backup --runtag {TAG}"), 0)
    flows = nas.folder / "volumes/nodered/flows.json"
    flows.write_text("changed")
    there = content_of(nas.vault)
    nas.twice.put("cat", READS)
    said(nas.run(f"restore --runtag {TAG} --from nas --dry-run"), 0)
    assert f"{nas.vault}/{ARCHIVE}" in nas.twice.seen.read_text().splitlines()
    told = said(nas.run(f"restore --runtag {TAG} --from nas --yes"), 1)
    assert f"{ARCHIVE}.partial on this machine differs from what was sent" in told
    assert "nas, or the connection to it, returned different bytes" in told
    assert "Use another copy or another backup: inv list" in told
    assert "The stack was not changed" in told
    assert flows.read_text() == "changed"
    assert content_of(nas.vault) == there
    nas.twice.mend()
    said(nas.run(f"restore --runtag {TAG} --from nas --yes"), 0)
    assert flows.read_text() == "[]\n"


@pytest.mark.long
def test_a_host_that_hashes_otherwise_the_second_time_restores_nothing(tmp_path, start_sshd):
    """Be it while the archive is unpacked, as its dates tell, or in another run."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    laptop = Laptop(tmp_path / "laptop", pi)
    said(laptop.run(f"backup --host pi --runtag {TAG}"), 0)
    archive, flows = pi.backups / ARCHIVE, pi.folder / "volumes/nodered/flows.json"
    flows.write_text("changed")
    there = content_of(pi.backups)
    twice = Twice(pi.tools)
    twice.put("openssl", HASHES.replace("else ", f"else touch {shlex.quote(str(archive))}; "))
    for why in ("was changed while it was being read", "is damaged: its SHA-256 is"):
        told = said(laptop.run(f"restore --host pi --runtag {TAG} --from here --yes"), 1)
        assert f"{archive} {why}" in told
        assert "The stack was not changed" in told
        assert flows.read_text() == "changed"
        assert content_of(pi.backups) == there
    twice.mend()
    said(laptop.run(f"restore --host pi --runtag {TAG} --from here --yes"), 0)
    assert flows.read_text() == "[]\n"
