"""The program as a process without the start of Python: one that has imported it forks for each run.

Half of what a short command costs is that start. A fork has arguments, an environment, streams and
an exit code of its own, as any process. What a test says to Python itself (PYTHONPATH), or another
language, takes a real start; so does what a test kills or watches by its command line.
"""

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module

LANGUAGE = {"LANG": "C.UTF-8"}
OF_A_START = ("PYTHON", "LANG", "LC_")
LARGEST = 1 << 16
FAR = ("fabric", "paramiko", "rich.console", "rich.progress", "rich.table", "sqlite3")


def serves(environment):
    """Tell whether a fork can have such an environment."""
    own = {key: each for key, each in environment.items() if key.startswith(OF_A_START)}
    return own == LANGUAGE


class Forks:
    """The process that forks; `start` starts it, given its words, and a descriptor to keep."""

    def __init__(self, start):
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self.process = start([sys.executable, __file__, str(its.fileno())], its.fileno())
        self.line = ours

    def run(self, words, environment, *, limit_s, folder=None, errors="strict"):
        """Run the program to its end, with nothing to read; return how it ended."""
        asked = {"words": words, "environment": environment, "folder": folder or os.getcwd()}
        with contextlib.ExitStack() as open_files:
            pipes = [os.pipe() for _ in range(2)]
            fates = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            fate = open_files.enter_context(fates[0])
            outputs = [open_files.enter_context(open(each, "rb")) for each, _ in pipes]
            nothing = os.open(os.devnull, os.O_RDONLY)
            its = [nothing, *(each for _, each in pipes), fates[1].fileno()]
            try:
                socket.send_fds(self.line, [json.dumps(asked).encode()], its)
            finally:
                fates[1].close()
                for each in its[:-1]:
                    os.close(each)
            try:
                told = _read(outputs, time.monotonic() + limit_s)
                fate.settimeout(limit_s)
                code = int(fate.recv(16))
            except TimeoutError:
                fate.send(b"kill")
                raise subprocess.TimeoutExpired(words, limit_s) from None
        out, err = (each.decode("utf-8", errors).replace("\r\n", "\n") for each in told)
        return subprocess.CompletedProcess(words, code, out, err)

    def stop(self):
        """End the process that forks; what still runs is killed by it."""
        self.line.close()
        self.process.wait(20)


def _read(streams, deadline_s):
    """Return all that streams say to their ends."""
    said = {each: [] for each in streams}
    with selectors.DefaultSelector() as waiting:
        for each in streams:
            waiting.register(each, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0, deadline_s - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                said[key.fileobj].append(os.read(key.fd, LARGEST))
                if not said[key.fileobj][-1]:
                    waiting.unregister(key.fileobj)
    return [b"".join(each) for each in said.values()]


_here = []


def run(words, environment, *, limit_s):
    """Run the program on this machine."""
    if not _here:

        def start(words, kept):
            own = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
            return subprocess.Popen(
                words, env=own | LANGUAGE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                pass_fds=(kept,),
            )  # fmt: skip

        _here.append(Forks(start))
        atexit.register(_here[0].stop)
    return _here[0].run(words, environment, limit_s=limit_s)


# The process that forks.


def _import_all():
    """Bring in every room of this very tree, and what they bring in when it is needed."""
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    package = import_module("iotstack_invoke")
    for each in pkgutil.walk_packages(package.__path__, "iotstack_invoke."):
        if not each.name.endswith("__main__"):
            import_module(each.name)
    for name in FAR:
        import_module(name)


def _serve(line):
    """Fork for each request, until nobody asks any more; return the request in the fork."""
    waiting = selectors.DefaultSelector()
    waiting.register(line, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is line:
                told, given, _, _ = socket.recv_fds(line, LARGEST, 4)
                if not told:
                    for each in waiting.get_map().values():
                        if each.data and isinstance(each.fileobj, int):
                            _kill(each.data[0])
                    os._exit(0)
                pid = os.fork()
                if not pid:
                    waiting.close()
                    return json.loads(told), given
                for each in given[:3]:
                    os.close(each)
                fate = socket.socket(fileno=given[3])
                watch = os.pidfd_open(pid)
                waiting.register(watch, selectors.EVENT_READ, (pid, fate))
                waiting.register(fate, selectors.EVENT_READ, (pid, watch))
            elif isinstance(key.fileobj, int):
                pid, fate = key.data
                waiting.unregister(key.fileobj)
                waiting.unregister(fate)
                os.close(key.fileobj)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with fate, contextlib.suppress(OSError):
                    fate.send(str(code).encode())
                break  # the other event of this round may be of what is closed now
            else:
                _kill(key.data[0])


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _become(request, given):
    """Be the program: its streams, environment, folder and arguments."""
    for number, each in enumerate(given[:3]):
        os.dup2(each, number)
    os.closerange(3, max(given) + 1)
    for name, number, more in (
        ("stdin", 0, {}),
        ("stdout", 1, {}),
        ("stderr", 2, {"buffering": 1}),
    ):
        old = getattr(sys, name)
        mode = "r" if name == "stdin" else "w"
        new = open(number, mode, encoding=old.encoding, errors=old.errors, closefd=False, **more)  # noqa: SIM115
        setattr(sys, name, new)
    os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv[1:] = request["words"]
    gc.enable()
    try:
        runpy.run_module("iotstack_invoke", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        _end(error.code)
    _end(0)


def _end(code):
    """End as Python does, but for the taking down of all that was imported: half of a short run."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _import_all()
    gc.disable()
    gc.freeze()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
