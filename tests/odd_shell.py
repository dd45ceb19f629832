"""A login that runs what it is told, and mangles the answer in one way: python3 odd_shell.py WAY.

Whether there is a shell at all it answers well; so does it say the mark of login_shell.py.
"""

import os
import re
import subprocess
import sys

ASKED = os.environ.get("SSH_ORIGINAL_COMMAND", "")
WAYS = {
    "empty": lambda _: b"",
    "extra": lambda told: told + b"Auf Wiedersehen\n",
    "garbage": lambda _: os.urandom(300),
    "letters": lambda told: re.sub(rb"\d", b"x", told),
    "twice": lambda told: b"".join(line * 2 for line in told.splitlines(keepends=True)),
    "huge": lambda told: re.sub(rb"\d+", b"9" * 5000, told),
    "big": lambda told: re.sub(rb"\d+", b"9" * 25, told),
    "latin": lambda _: "Gerät nicht verfügbar\n".encode("latin-1"),
    "zero": lambda _: bytes(200),
    "first": lambda told: b"hallo\n" + told,
    "deep": lambda _: b"[" * 100_000,
    # What `stat` without -c, and with the -f of a file system, makes of BSD's words for it.
    "file system": lambda told: b'  File: "x"\n    ID: 1 Namelen: 255\n' * told.count(b"\n"),
}


def main(way):
    words = ["sh", "-c", ASKED]
    if "a-shell-answers" in ASKED or not ASKED:
        os.execvp("sh", words)  # noqa: S606 - there is one
    with subprocess.Popen(words, stdout=subprocess.PIPE) as behind:
        told = behind.stdout.readline()
        while told and b"iotstack-begins-" not in told:
            told = behind.stdout.readline()
        os.write(1, told)
        told = WAYS[way](behind.stdout.read())
        while told:
            told = told[os.write(1, told) :]
    sys.exit(behind.returncode)


if __name__ == "__main__":
    main(sys.argv[1])
