"""A person at a terminal: reads what a program shows, and types."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

from contexts import is_asleep, until

CONTROL = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()].|[=>78])|\r")
"""What moves the cursor or gives a colour."""
DOWN, ENTER, CTRL_C = "\x1b[B", "\r", "\x03"


class Person:
    """One run of a program on a terminal of its own, which is its controlling one."""

    def __init__(self, words, environment, columns=200):
        self.shown = ""
        self._seen = 0
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(words[0], [os.fspath(each) for each in words], environment)  # noqa: S606
            finally:
                os._exit(127)
        size = struct.pack("HHHH", 50, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def sees(self, text, limit_s=60.0):
        """Wait for a text after what was seen before; return what came before it."""
        deadline = time.monotonic() + limit_s
        while (at := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, f"{text!r} did not come:\n{self.shown}"
            assert self._reads(0.2) is not None, f"it ended without {text!r}:\n{self.shown}"
        before = self.shown[self._seen : at]
        self._seen = at + len(text)
        return before

    def types(self, text):
        """Type, with Enter after it."""
        self.presses(f"{text}{ENTER}")

    def presses(self, keys):
        """Press keys, once the program waits for them."""
        until(lambda: is_asleep(self.pid))
        os.write(self._terminal, keys.encode())

    def ends(self, limit_s=60.0):
        """Wait for the program's end; return its exit code."""
        deadline = time.monotonic() + limit_s
        while self._reads(0.2) is not None:
            assert time.monotonic() < deadline, f"it did not end:\n{self.shown}"
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _reads(self, limit_s):
        """Read what is shown within a time; None at the end."""
        if not select.select([self._terminal], [], [], limit_s)[0]:
            return ""
        try:
            text = os.read(self._terminal, 1 << 16).decode("utf-8", "replace")
        except OSError:  # the program has closed it
            return None
        self.shown += CONTROL.sub("", text)
        return text or None
