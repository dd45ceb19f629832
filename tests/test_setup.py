"""The script `setup`, and what is told where it installed the program alone."""

import os
import shutil
import subprocess
import sys

import folders
import pytest

CHECKOUT = str(folders.CHECKOUT)


@pytest.mark.parametrize("words", [["tset"], ["test", "more"], [""]])
def test_a_word_that_is_not_known_installs_nothing(tmp_path, words):
    """It is told with what to write, exit code 2; an empty one installs the program, as none."""
    shutil.copy(f"{CHECKOUT}/setup", tmp_path)
    words = ["sh", str(tmp_path / "setup"), *words]
    environment = {**os.environ, "PYTHON": "/bin/false"}
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if words[2:] == [""]:
        assert told.returncode == 1  # by the version of /bin/false
        return
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.endswith(": write sh setup, or sh setup test.\n")
    assert os.listdir(tmp_path) == ["setup"]


@pytest.mark.parametrize("task", ["test", "bench"])
def test_tests_that_are_not_installed_are_told_with_how_to(task):
    """A sentence, and not Python's own words."""
    code = (
        "import sys; sys.modules['pytest'] = None; from invoke.main import program; "
        f"program.run(['inv', '-r', {CHECKOUT!r}, {task!r}])"
    )
    words = [sys.executable, "-c", code]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stderr.endswith("Install them with: sh setup test\n")
    assert told.stderr.count("\n") == 1
