"""Waiting for containers, against a `docker` that is a script: up is what stays up."""

import os
import shutil
import subprocess

import pytest
from scenes import PlainScene

from iotstack_invoke.actions.prospect import project_words
from iotstack_invoke.errors import StepFailed
from iotstack_invoke.hosts import LocalHost
from iotstack_invoke.services import stack
from iotstack_invoke.services.compose import chosen_files
from iotstack_invoke.services.influx_load import CopyFolder
from iotstack_invoke.services.stack import MakeFolder, Unpack, WaitForContainers


@pytest.fixture
def scene():
    return PlainScene({"pi": LocalHost("/")})


class Clock:
    """A clock that only moves while somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    def sleep(self, time_s):
        self.now_s += time_s


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Return a maker of a docker whose n-th answer is the n-th line, the last one ever after."""
    monkeypatch.setattr(stack, "HEALTH_LIMIT_S", 8)
    monkeypatch.setattr(stack, "time", Clock())

    def make(*answers):
        for number, answer in enumerate(answers, 1):
            (tmp_path / f"answer{number}").write_text(f"{answer}\n")
        script = tmp_path / "docker"
        script.write_text(
            f"#!/bin/sh\ncd {tmp_path}\necho >> asked\nn=$(wc -l < asked)\n"
            f"[ $n -le {len(answers)} ] || n={len(answers)}\ncat answer$n\n"
        )
        script.chmod(0o755)
        return WaitForContainers("pi", ("a",), (str(script),)), tmp_path / "asked"

    return make


UP, LATER = "/a 2026-11-23T11:00:00Z true false ", "/a 2026-11-23T11:00:09Z true false "
DOWN, AGAIN = "/a 2026-11-23T11:00:00Z false false ", "/a 2026-11-23T11:00:00Z true true "


def test_a_container_that_stays_up_is_up(scene, docker):
    """It is asked for as long as a program may take to end of itself."""
    wait, asked = docker(UP)
    wait.do(scene)
    assert len(asked.read_text()) == 1 + stack.SETTLE_S  # once a second


@pytest.mark.parametrize("answers", [(UP, UP, DOWN), (UP, AGAIN), (DOWN,)])
def test_a_container_that_ends_after_its_start_is_down(scene, docker, answers):
    """One that was up for a moment is a failure, whether it ended or is started over and over."""
    wait, _ = docker(*answers)
    with pytest.raises(StepFailed, match="do not stay up: a"):
        wait.do(scene)


def test_a_container_that_came_back_must_stay_as_long(scene, docker):
    """A new start begins the wait anew, even where nobody saw it down."""
    wait, asked = docker(UP, UP, LATER)
    wait.do(scene)
    assert len(asked.read_text()) == 3 + stack.SETTLE_S


def test_one_that_is_up_but_sick_is_a_warning(scene, docker):
    """A health check that does not come good is told, and the restore is not thrown away."""
    wait, _ = docker(f"{UP}starting")
    wait.do(scene)
    assert scene.warned == ["Up, but not healthy after 8 s: a."]


def test_a_new_folder_is_owned_as_the_old_one_was(scene, tmp_path):
    """A server that runs as its own user may write there; without an old one it has mode 0755."""
    old = tmp_path / "old"
    old.mkdir(mode=0o700)
    for like, mode in ((old, 0o700), (tmp_path / "none", 0o755)):
        new = tmp_path / f"new{mode}"
        MakeFolder("pi", str(new), (), str(tmp_path / "guard"), like=str(like)).do(scene)
        assert new.stat().st_mode & 0o777 == mode
        assert new.stat().st_uid == tmp_path.stat().st_uid


def test_a_copy_makes_the_folder_above(scene, tmp_path):
    """A copy of data may be the first thing in its folder; undone, it is gone."""
    source, target = tmp_path / "live", tmp_path / "stage/databases/it's"
    source.mkdir()
    (source / "file").write_text("x")
    step = CopyFolder("pi", str(source), str(target), (), str(tmp_path / "guard"), 60)
    step.do(scene)
    assert (target / "file").read_text() == "x"
    step.undo(scene.host("pi"))
    assert not target.exists()


@pytest.mark.parametrize("works", [True, False])
def test_what_was_unpacked_is_on_the_disk(scene, tmp_path, monkeypatch, works):
    """All of it, before it is taken for whole: the renames that follow are synced alone."""
    source, stage, synced = (tmp_path / each for each in ("source", "stage", "synced"))
    source.mkdir()
    (source / "file").write_text("x")
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", source, "-cf", archive, "."], check=True)
    (tmp_path / "bin").mkdir()
    act = f'cat {stage}/file > {synced}; exec {shutil.which("sync")} "$@"'
    (tmp_path / "bin/sync").write_text(
        f'#!/bin/sh\n[ "$*" = "--file-system {stage}" ] || exit 9\n'
        f"{act if works else 'echo Input/output error >&2; exit 1'}\n"
    )
    (tmp_path / "bin/sync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    step = Unpack("pi", str(archive), str(stage), (), str(tmp_path / "guard"))
    if works:
        step.do(scene)
        assert synced.read_text() == "x"
        return
    with pytest.raises(StepFailed, match="Input/output error"):
        step.do(scene)


@pytest.mark.parametrize(
    ("there", "chosen", "words"),
    [
        (("docker-compose.yml",), (), "--project-directory /s --file /s/docker-compose.yml"),
        ((), (), "--project-directory /s"),
        (
            ("docker-compose.yml", "docker-compose.override.yml"),
            (),
            "--project-directory /s --file /s/docker-compose.yml --file /s/docker-compose.override.yml",
        ),
        (
            ("docker-compose.yml",),
            ("main.yml", "../x.yml"),
            "--project-directory /s --file /s/main.yml --file /x.yml",
        ),
        ((), ("a/b.yml",), "--project-directory /s/a --env-file /s/.env --file /s/a/b.yml"),
    ],
)
def test_compose_is_asked_for_the_files_of_the_stack(there, chosen, words):
    """Those of its folder, or those that COMPOSE_FILE names, in the folder that their paths mean."""
    file = "docker-compose.yml" if "docker-compose.yml" in there else ""
    assert " ".join(project_words("/s", file, dict.fromkeys(there, "f"), chosen)) == words


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("", ()),
        ("COMPOSE_FILE=a.yml:b.yml", ("a.yml", "b.yml")),
        ("COMPOSE_PATH_SEPARATOR=,\nCOMPOSE_FILE='a.yml,b c.yml'", ("a.yml", "b c.yml")),
        ("# COMPOSE_FILE=a.yml", ()),
        ("NAME=x\nCOMPOSE_FILE=${NAME}.yml", ("x.yml",)),
    ],
)
def test_the_compose_files_that_variables_choose(text, files):
    """As compose reads them."""
    assert chosen_files(text) == files
