"""The line to an sshd on this machine, as the rivals and the settings name it."""

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import corpus
from contexts import LittleStack
from sshd import Sshd

from iotstack_invoke.hosts.ssh_settings import Ssh


@dataclass
class FarVault:
    """A stack of some size, and a folder behind an sshd that is its vault `nas`."""

    top: str
    stack: LittleStack
    login: Ssh
    vault: Path

    def run(self, line):
        """Run a task to its good end."""
        told = self.stack.run(line, limit_s=3600)
        assert told.returncode == 0, told.stderr


@contextlib.contextmanager
def far_vault(megabytes):
    """Yield one; nothing of it stays."""
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        stack, server = LittleStack(Path(top)), Sshd(Path(top) / "sshd")
        try:
            corpus.make(str(stack.folder), megabytes=megabytes)
            context = FarVault(top, stack, server.login(), Path(top) / "vault")
            context.vault.mkdir()
            with stack.settings.open("a") as stream:
                stream.write("exclude_defaults = false\n")  # the rivals pack all of it
                stream.write(vault_text(context.login, context.vault))
            yield context
        finally:
            server.stop()


def scp_words(ssh):
    """Return `scp` with the options that log in."""
    known = f"UserKnownHostsFile={ssh.known_hosts}"
    return ["scp", "-q", "-F", ssh.config, "-P", str(ssh.port), "-i", ssh.key, "-o", known]


def ssh_words(ssh):
    """Return `ssh` up to the host."""
    known = f"UserKnownHostsFile={ssh.known_hosts}"
    words = ["ssh", "-F", ssh.config, "-p", str(ssh.port), "-i", ssh.key, "-o", known]
    return [*words, "-l", ssh.user, ssh.host]


def address(ssh, path):
    """Return a path of the far side, for scp."""
    return f"{ssh.user}@{ssh.host}:{path}"


def vault_text(ssh, folder):
    """Return the table of hosts.toml for a vault there."""
    keys = {"host": ssh.host, "user": ssh.user, "key": ssh.key, "ssh_config": ssh.config}
    keys |= {"known_hosts": ssh.known_hosts, "folder": folder, "name": "nas", "kind": "ssh"}
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    return "\n".join(["[[vaults]]", *lines, f"port = {ssh.port}", ""])
