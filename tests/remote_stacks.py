"""Little stacks behind sshds of their own, and the laptop that looks after them."""

import os

from contexts import LittleStack


class Pi(LittleStack):
    """A little stack whose machine is reached over SSH; its Docker is first in the PATH there."""

    def __init__(self, base, start_sshd, name, **keys):
        base.mkdir(parents=True, exist_ok=True)
        super().__init__(base)
        self.name = name
        self.base = base
        self.keys = keys
        self.backups = self.folder / "backups"
        path = f"{self.tools}:{os.environ['PATH']}"
        self.sshd = start_sshd(f"sshd-{name}", path=path)

    def row(self):
        """Return its [[hosts]] of the laptop's settings."""
        login = self.sshd.login()
        keys = {
            "name": self.name,
            "host": login.host,
            "user": login.user,
            "port": login.port,
            "key": login.key,
            "ssh_config": login.config,
            "known_hosts": login.known_hosts,
            "folder": str(self.folder),
            "sudo": False,
            **self.keys,
        }
        told = (
            f"{key} = {str(value).lower() if isinstance(value, (bool, int)) else repr(value)}"
            for key, value in keys.items()
        )
        return "\n".join(["[[hosts]]", *told, ""])


class Laptop(LittleStack):
    """A machine without a stack, with a folder that is a vault."""

    def __init__(self, base, *pis, vaults=("shelf",)):
        base.mkdir()
        self.base = base
        self.folder = base / "IOTstack"
        self.vaults = [base / name for name in vaults]
        self.settings = base / "hosts.toml"
        rows = [f'[stack]\nfolder = "{self.folder}"\n', *(each.row() for each in pis)]
        for each in self.vaults:
            each.mkdir()
            rows.append(f'[[vaults]]\nname = "{each.name}"\nkind = "folder"\nfolder = "{each}"\n')
        self.settings.write_text("\n".join(rows))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(base),
            "LANG": "C.UTF-8",
            "IOTSTACK_SETTINGS": str(self.settings),
        }

    @property
    def logs(self):
        """The logs of hosts, by name."""
        folder = self.base / ".local/state/iotstack/hosts"
        return {each.name.split(".")[0]: each.read_text() for each in folder.iterdir()}


def names_in(folder):
    return sorted(each.name for each in folder.iterdir())
