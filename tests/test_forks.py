"""A fork of the program ends as one that Python starts."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import forks
import pytest
from contexts import until
from sshd import offspring

import iotstack_invoke


@pytest.mark.parametrize(
    "line", ["list --json", "backup --runtag ''", "backup --dry-run --runtag t1 --why"]
)
def test_a_fork_ends_as_a_start_does(little_stack, line):
    """With the same words on either stream, and the same exit code."""
    little_stack.environment["TZ"] = "Asia/Kolkata"
    forked = little_stack.run(line)
    started = little_stack.start(line)
    assert (forked.stdout, forked.stderr) == started.communicate(timeout=60)
    assert forked.returncode == started.returncode


def test_a_fork_that_takes_too_long_is_killed(little_stack):
    """As subprocess.run does it."""
    little_stack.tool("docker", 'touch "$0.asked"; exec sleep 60')
    with pytest.raises(subprocess.TimeoutExpired):
        little_stack.run("backup --runtag t1", limit_s=3)
    assert (little_stack.tools / "docker.asked").exists()
    forking = forks._here[0].process
    until(lambda: not offspring(forking.pid))
    assert little_stack.run("list").returncode == 0


def test_a_fork_is_of_the_tree_that_its_file_lies_in(tmp_path, little_stack):
    """Whatever else is installed: a mutant in a copy is tried there."""
    package = Path(iotstack_invoke.__file__).parent
    shutil.copytree(package, tmp_path / "iotstack_invoke")
    (tmp_path / "tests").mkdir()
    copied = shutil.copy(forks.__file__, tmp_path / "tests")
    (tmp_path / "iotstack_invoke/__init__.py").write_text('__version__ = "another"\n')
    spec = importlib.util.spec_from_file_location("copied", copied)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told = module.run(["--version"], little_stack.environment, limit_s=60)
    module._here[0].stop()
    assert "another" in told.stdout


@pytest.mark.parametrize("key", ["PYTHONPATH", "LC_ALL", "LANG"])
def test_what_is_said_to_python_takes_a_start(little_stack, key):
    assert forks.serves(little_stack.environment)
    assert not forks.serves({**little_stack.environment, key: "de_DE.UTF-8"})
