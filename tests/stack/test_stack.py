"""Steps that change a running stack, and the words that compose is asked with."""

import os
import shutil
import subprocess

import pytest
from contexts import PlainContext

from iotstack_invoke.commands.restore.planner import project_words
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.compose import chosen_files
from iotstack_invoke.stack.folders import CopyFolder, MakeFolder, Unpack


@pytest.fixture
def context():
    return PlainContext({"pi": LocalHost("/")})


def test_a_new_folder_is_owned_as_the_old_one_was(context, tmp_path):
    """A server that runs as its own user may write there; without an old one it has mode 0755."""
    old = tmp_path / "old"
    old.mkdir(mode=0o700)
    for like, mode in ((old, 0o700), (tmp_path / "none", 0o755)):
        new = tmp_path / f"new{mode}"
        MakeFolder(HostAccess("pi", guard=str(tmp_path / "guard")), str(new), like=str(like)).do(
            context
        )
        assert new.stat().st_mode & 0o777 == mode
        assert new.stat().st_uid == tmp_path.stat().st_uid


def test_a_copy_makes_the_folder_above(context, tmp_path):
    """A copy of data may be the first thing in its folder; undone, it is gone."""
    source, target = tmp_path / "live", tmp_path / "stage/databases/it's"
    source.mkdir()
    (source / "file").write_text("x")
    step = CopyFolder(
        HostAccess("pi", guard=str(tmp_path / "guard")), str(source), str(target), 60
    )
    step.do(context)
    assert (target / "file").read_text() == "x"
    step.undo(context.host("pi"))
    assert not target.exists()


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("kind", ["unpacked", "copied"])
def test_what_was_made_is_on_the_disk(context, tmp_path, monkeypatch, kind, works):
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
    guard = str(tmp_path / "guard")
    if kind == "unpacked":
        step = Unpack(HostAccess("pi", guard=guard), str(archive), str(stage))
    else:
        step = CopyFolder(HostAccess("pi", guard=guard), str(source), str(stage), 60)
    if works:
        step.do(context)
        assert synced.read_text() == "x"
        return
    with pytest.raises(StepFailed, match="Input/output error"):
        step.do(context)


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
