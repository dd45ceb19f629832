"""Ctrl-C while a rehearsal asks Docker."""

import signal

import pytest
from sample_sets import Shelf

from iotstack_invoke.commands.restore import rehearse as module
from iotstack_invoke.commands.restore.rehearse import rehearse
from iotstack_invoke.core.errors import Interrupted
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.services.containers import Container


@pytest.mark.parametrize("asked", ["docker", "image"])
def test_ctrl_c_ends_it(tmp_path, monkeypatch, capsys, asked):
    """It is no Docker that does not answer: nothing is unpacked after it."""
    commands = []
    run = LocalHost.run

    def stop(*_):
        raise Interrupted(signal.SIGINT)

    def watched(self, command: Command, *rest):
        commands.append(command.argv)
        if command.argv[:2] in {("docker", "image"), ("docker", "pull")}:
            stop()
        return run(self, command, *rest)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(LocalHost, "run", watched)
    monkeypatch.setattr(
        module, "docker_words", stop if asked == "docker" else lambda *_: ("docker",)
    )
    monkeypatch.setattr(module, "inspect_all", lambda *_: ())
    shelf = Shelf(tmp_path)
    image = Container("influxdb", "influxdb:1.8", "sha256:1", "sha256:2", running=True)
    shelf.put("one", containers=(image,))
    assert rehearse(shelf.settings(), "one", "here", Report()) == 130
    assert (
        "The rehearsal was stopped by Ctrl-C. The stack was not changed."
        in capsys.readouterr().err
    )
    assert not any("tar" in words for words in commands)
    assert not (shelf.stack / "restore/rehearsal").exists()
