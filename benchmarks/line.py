"""The line to an sshd on this machine, as the rivals and the settings name it."""


def scp_words(ssh):
    """Return `scp` with the options that log in."""
    known = f"UserKnownHostsFile={ssh.known_hosts}"
    return ["scp", "-q", "-F", ssh.config, "-P", str(ssh.port), "-i", ssh.key, "-o", known]


def address(ssh, path):
    """Return a path of the far side, for scp."""
    return f"{ssh.user}@{ssh.host}:{path}"


def vault_text(ssh, folder):
    """Return the table of hosts.toml for a vault there."""
    keys = {"host": ssh.host, "user": ssh.user, "key": ssh.key, "ssh_config": ssh.config}
    keys |= {"known_hosts": ssh.known_hosts, "folder": folder, "name": "nas", "kind": "ssh"}
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    return "\n".join(["[[vaults]]", *lines, f"port = {ssh.port}", ""])
