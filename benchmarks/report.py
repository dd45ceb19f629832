"""Runs benchmarks and prints what they find; --keep keeps it in docs/performance.md.

python benchmarks/report.py [--keep] [NAME …]
"""

import ast
import os
import platform
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/performance.md"
RUNS = re.compile(r"^(?:    )?main\(\)$", re.MULTILINE)


def names():
    """Return the names of all benchmarks: the modules here that run by themselves."""
    texts = {path.stem: path.read_text() for path in sorted(HERE.glob("*.py"))}
    return [name for name, text in texts.items() if RUNS.search(text) and name != "report"]


def machine():
    """Return what was measured on, and when: ratios hold elsewhere, seconds do not."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    processor = model[1] if model else platform.machine()
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} of {processor}, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, load before {load:.1f}"
    )


def section(name):
    """Run a benchmark and return its section of the page."""
    measured = machine()
    told = output([sys.executable, "-u", HERE / f"{name}.py"])
    about = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text()))
    first, _, rest = about.partition("\n\n")
    reach = " ".join(rest.split("\n\n", 1)[1].split()) if "\n\n" in rest else ""
    texts = (f"## {name}", " ".join(first.split()), reach, markdown(told), f"*{measured}*")
    return "\n\n".join(filter(None, texts))


def output(words):
    """Run a command and return what it prints, which is shown as it comes; fails where it fails.

    Whatever stops us interrupts it, and it alone is told so: it removes what it made.
    """
    lines = []
    given = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(words, **given) as process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            sys.exit("Interrupted; docs/performance.md has what was kept before.")
    if process.returncode:
        sys.exit(f"{words[-1]} failed (exit {process.returncode}).")
    print()
    return "".join(lines)


def markdown(told):
    """Return output with each line outside of a table as a paragraph of a list."""
    lines = []
    for line in filter(None, told.splitlines()):
        is_row = line.startswith("|")
        if lines and is_row != lines[-1].startswith("|"):
            lines.append("")
        lines.append(line if is_row else f"- {line}")
    return "\n".join(lines)


def keep(name, text):
    """Put a section in the place of the one of its name, or behind all others."""
    page = PAGE.read_text()
    old = re.compile(rf"^## {name}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    new = f"{text}\n\n"
    if old.search(page):
        page = old.sub(lambda _: new, page)
    else:
        page = f"{page.rstrip()}\n\n{new}"
    PAGE.write_text(f"{page.rstrip()}\n")


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keeps = "--keep" in sys.argv[1:]
    wanted = [each for each in sys.argv[1:] if each != "--keep"] or names()
    unknown = set(wanted) - set(names())
    if unknown:
        sys.exit(
            f"There is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(names())}."
        )
    for name in wanted:
        print(f"{name}:", flush=True)
        text = section(name)
        if keeps:
            keep(name, text)


if __name__ == "__main__":
    main()
