"""What Docker tells of the layer of a container, and if it does not."""

import pytest

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack import layer


def test_a_docker_that_does_not_answer_holds_nothing_up(little_stack, monkeypatch):
    """After its time the question has failed, as any that ends badly."""
    little_stack.tool("docker", "echo A /early; exec sleep 60")
    monkeypatch.setenv("PATH", little_stack.environment["PATH"])
    monkeypatch.setattr(layer, "LOOK_LIMIT_S", 0.3)
    with pytest.raises(StepFailed, match="docker diff"):
        layer.changes_in_layer(LocalHost(str(little_stack.folder)), "web")
