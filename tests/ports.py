"""Ports of the loopback for servers of tests: none is given twice, by no test run of the machine."""

import collections
import itertools
import secrets
import socket

_RANGE = (22_000, 32_000)
"""Below those that the system gives to connections (ip_local_port_range: 32768 and above)."""
_held = collections.deque(maxlen=300)
"""A name of each port, held while its server may run: whoever finds it taken takes another."""


def free_port():
    """Return a port on which nobody listens, and which no other test is given meanwhile.

    A port that was only found free may be found by two: the server that comes second ends, and
    its test talks to that of the first.
    """
    for _ in itertools.repeat(None, 10_000):
        port = _RANGE[0] + secrets.randbelow(_RANGE[1] - _RANGE[0])
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0iotstack-invoke port {port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        if len(_held) == _held.maxlen:
            _held.popleft().close()
        _held.append(name)
        return port
    raise OSError("no port is free")
