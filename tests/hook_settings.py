"""Hooks, written into a hosts.toml."""

import json


def set_hooks(pi, title="[hooks]", /, **wanted):
    """Write the hooks of this machine, or below another title: tables or words by their name."""
    with pi.settings.open("a") as stream:
        stream.write(f"{title}\n")
        for name, each in wanted.items():
            listed = ", ".join(json.dumps(h) if isinstance(h, list) else h for h in each)
            stream.write(f"{name} = [{listed}]\n")
