"""Write docs/terminal.svg, the picture of the README: `python docs/terminal.py`.

Runs the program on a sample stack in a temporary folder, with a folder as vault, in a terminal of
80 columns, and draws what that terminal shows in the end. `--check` compares the texts instead,
without their numbers: times and sizes differ from run to run.
"""

import fcntl
import html
import io
import os
import pty
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "terminal.svg"
COLUMNS, LINES = 80, 50
COMMANDS = ("backup", "list", "status", "rehearse")
HOME = "/home/pi"
"""What the temporary home is called in the picture."""
SETTINGS = """\
[stack]
sudo = false

[[vaults]]
name = "nas"
kind = "folder"
folder = "~/nas"
"""
FILES = {
    "docker-compose.yml": "services:\n  nodered:\n    image: nodered/node-red\n",
    ".env": "TZ=Etc/UTC\n",
    "services/nodered/Dockerfile": "FROM nodered/node-red\n",
    "volumes/mosquitto/config/mosquitto.conf": "listener 1883\n",
}
NO_CONTAINERS = "#!/bin/sh\n# Stands in for a Docker engine without containers.\n"
_TEXT = re.compile(r'<text [^>]* y="([^"]*)"[^>]*>([^<]*)</text>')
_VARIES = re.compile(
    r"(was made just now|is \d+ minutes? old)|\bnow\b|\d[\d.,]*(\s*(s|min|[kMG]?B)\b)?"
)
"""What differs from run to run: ages, times, sizes; an age, as a minute may end in between."""
_CODE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def main(words: list[str]) -> int:
    """Write the picture and return 0; with `--check` return 1 if its texts are not current."""
    made = picture()
    if "--check" not in words:
        PICTURE.write_text(made, "utf-8")
    elif not PICTURE.exists() or texts_of(PICTURE.read_text("utf-8")) != texts_of(made):
        told = f"{PICTURE} is not what the program shows. Write it: python {sys.argv[0]}\n"
        sys.stderr.write(told)
        return 1
    return 0


def picture() -> str:
    """Run each command, and return the picture."""
    with tempfile.TemporaryDirectory() as top:
        environment = make_sample(Path(top))
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        for command in COMMANDS:
            if command != COMMANDS[0]:
                console.print()
            console.print(f"[bold green]pi@raspberrypi[/]:[bold blue]~[/] $ iotstack {command}")
            for line in screen(run(command, environment).replace(top, HOME)):
                console.print(Text.from_ansi(line))
    return console.export_svg(title="iotstack", unique_id="terminal")


def texts_of(svg: str) -> str:
    """Return the words of a picture in their order, without numbers, units and line breaks."""
    rows = dict[str, str]()
    for row, text in _TEXT.findall(svg):
        rows[row] = rows.get(row, "") + html.unescape(text)
    words = "\n".join(rows.values()).replace("\xa0", " ")
    return re.sub(r"[\s─]+", "", _VARIES.sub("", words))


def make_sample(home: Path) -> dict[str, str]:
    """Make a stack, a vault and their settings in a home; return the environment to run in."""
    settings, stack, docker = (
        home / each for each in (".config/iotstack/hosts.toml", "IOTstack", "bin/docker")
    )
    texts = {settings: SETTINGS, docker: NO_CONTAINERS}
    texts |= {stack / name: text for name, text in FILES.items()}
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    docker.chmod(0o755)
    (home / "nas").mkdir()
    flows = stack / "volumes/nodered/data/flows.json"
    flows.parent.mkdir(parents=True)
    flows.write_bytes(os.urandom(3_000_000))  # what does not shrink, so that sizes look real
    database = stack / "volumes/grafana/data/grafana.db"
    database.parent.mkdir(parents=True)
    sqlite3.connect(database).execute("CREATE TABLE dashboard (title TEXT)").connection.close()
    own = {"HOME": str(home), "PATH": f"{docker.parent}:{os.environ['PATH']}"}
    own |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    return {**os.environ, "XDG_CONFIG_HOME": f"{home}/.config", **own}


def run(command: str, environment: Mapping[str, str]) -> str:
    """Return all that a command writes to a terminal of its own; it must end with 0."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    words = [sys.executable, "-m", "iotstack_invoke", command]
    with subprocess.Popen(words, stdin=its, stdout=its, stderr=its, env=environment) as child:
        os.close(its)
        told = b""
        try:
            while chunk := os.read(mine, 65_536):
                told += chunk
        except OSError:  # its end is closed: so Linux tells it
            pass
        os.close(mine)
    if child.returncode:
        sys.exit(f"iotstack {command} ended with {child.returncode}:\n{told.decode()}")
    return told.decode()


def screen(told: str) -> list[str]:
    """Return the lines that a terminal shows in the end, with colours, without empty ones."""
    lines: list[list[tuple[str, str]]] = [[]]
    row = column = 0
    style = ""
    for number, letter, move, text in _CODE.findall(told):
        if move == "\r":
            column = 0
        elif move == "\n":
            row += 1
            lines += [[]] * (row == len(lines))
        elif letter == "A":
            row = max(0, row - int(number or 1))
        elif letter == "K":
            lines[row] = []
        elif letter == "m":
            style = "" if number in ("", "0") else style + f"\x1b[{number}m"
        for character in text:
            cells = lines[row] + [(" ", "")] * (column - len(lines[row]))
            lines[row] = [*cells[:column], (character, style), *cells[column + 1 :]]
            column += 1
    filled = [cells for cells in lines if "".join(character for character, _ in cells).strip()]
    return ["".join(f"{style}{character}\x1b[0m" for character, style in e) for e in filled]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
