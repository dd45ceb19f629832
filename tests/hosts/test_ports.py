"""Servers of tests that run beside each other, also of another checkout, listen apart."""

import subprocess
import sys

import folders
from ports import free_port

SAYS = "import ports; print(*(ports.free_port() for _ in range(300)), flush=True); input()"


def test_no_port_is_given_twice():
    """Two processes that take many ports have none in common, while both live."""
    words = [sys.executable, "-c", SAYS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(words, cwd=folders.TESTS, **pipes) for _ in range(2)]
    given = [each.stdout.readline().split() for each in both]
    for each in both:
        each.communicate("\n")
    assert [len(set(ports)) for ports in given] == [300, 300]
    assert not set(given[0]) & set(given[1])
    assert free_port() != free_port()
