"""The most memory that a program had at a time.

Of a child, Linux also counts what its parent had when it was started (getrusage(2), ru_maxrss), so
a small program starts it, and not the tests with all that they have read.
"""

import sys
from pathlib import Path

_WAIT = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(child.pid, 0)
open(sys.argv[1], "w").write(str(used.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measured(words, file):
    """Return the words that do the same, and write into a file how many KiB it had at most."""
    return [sys.executable, "-S", "-c", _WAIT, str(file), *words]


def kib_in(file):
    """Return what was written there."""
    return int(Path(file).read_text())
