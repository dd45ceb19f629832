"""What the messages, Home Assistant and the metrics of a run cost, against a run without them.

    python benchmarks/looking_after.py

The reach: 50 ms more. A ping, an ntfy topic, a Mosquitto and the metrics' file, all on this
machine; the stack is a few files, so nothing hides in the time that packing takes. "Without" still
has what each run does: its record, and the look at what may be silent.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
import pairs
from contexts import LittleStack
from listeners import Listener
from mosquitto import Mosquitto


def little_stack(folder, more=""):
    """Return a way to back up a stack in a new folder, with some tables in its hosts.toml."""
    folder.mkdir()
    stack, numbers = LittleStack(folder), itertools.count()
    with stack.settings.open("a") as stream:
        stream.write(more)

    def back_up():
        words = stack.words(f"backup --runtag r{next(numbers)}")
        subprocess.run(words, check=True, capture_output=True, env=stack.environment)

    return back_up


def row(name, kind, url):
    """Return a table of hosts.toml for one who is told."""
    return f'[[notify]]\nname = "{name}"\nkind = "{kind}"\nurl = "{url}"\n'


def main():
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        folder, phone = Path(top), Listener()
        broker = Mosquitto(folder / "broker")
        try:
            rows = {
                "a ping": row("checks", "ping", f"{phone.url}/ping/1"),
                "ntfy": row("phone", "ntfy", f"{phone.url}/backups"),
                "Home Assistant": f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n',
                "metrics": f'[metrics]\ntextfile = "{folder}/backups.prom"\n',
            }
            rows["all of them"] = "".join(rows.values())
            silent = ("no one is told", little_stack(folder / "silent"))
            for name, told in rows.items():
                way = (name, little_stack(folder / name, told))
                pairs.compare(way, silent, rounds=15, more_s=0.05)
        finally:
            broker.stop()
            phone.close()


main()
