"""What the disks of people hold since an earlier version is read and undone by this one.

Each archive of fixtures/earlier was made by the version of the time that it is named by, on a
stack in /home/pi/IOTstack: a backup `one` when a file held [], then [1] and a restore that went
well, then [2] and one that was killed when it started the containers again.
"""

import json
import shutil
import subprocess

import folders
import pytest

EARLIER = sorted((folders.FIXTURES / "earlier").glob("*.tar.gz"))
FOLDER = "/home/pi/IOTstack"


@pytest.fixture(params=EARLIER, ids=lambda path: path.name.partition(".")[0])
def stack(request, little_stack):
    """The stack as that version left it; only its place is another."""
    little_stack.runs(nodered="nodered/node-red", grafana="grafana/grafana")
    names = """[ "$5" != "{{.Name}}" ] || { echo /nodered /grafana; exit; }"""
    docker = (little_stack.tools / "docker").read_text().partition("\n")[2]
    little_stack.tool("docker", f"{names}\n{docker}")
    shutil.rmtree(little_stack.folder)
    words = ["tar", "--extract", "--gzip", "--preserve-permissions", f"--file={request.param}"]
    subprocess.run([*words, f"--directory={little_stack.folder.parent}"], check=True)
    for path in little_stack.folder.rglob("*journal"):
        path.write_text(path.read_text().replace(FOLDER, str(little_stack.folder)))
    return little_stack


def flows(stack):
    return (stack.folder / "volumes/nodered/flows.json").read_text()


def good(stack, line):
    told = stack.run(line)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_it_is_read_restored_and_undone(stack):
    """List, show, verify; then both restores are undone, and the backup is restored."""
    assert flows(stack) == "[]\n"
    (found,) = json.loads(good(stack, "list --json"))
    assert (found["runtag"], found["here"]) == ("one", "complete")
    assert "general" in good(stack, "show one")
    good(stack, "verify --runtag one")
    assert "The interrupted run was undone. The stack is in the state" in good(stack, "undo --yes")
    assert flows(stack) == "[2]\n"
    assert not list(stack.folder.rglob(".journal"))
    new = list(stack.folder.glob("docker-compose.yml.*"))
    good(stack, "undo --last-restore --yes")
    assert flows(stack) == "[1]\n"
    assert not any(path.exists() for path in new)
    good(stack, "undo --list")
    good(stack, "restore --runtag one --from here --yes")
    assert flows(stack) == "[]\n"
    good(stack, "rehearse --runtag one")
    good(stack, "prune --dry-run")


@pytest.mark.parametrize("stack", EARLIER[:1], indirect=True)
@pytest.mark.parametrize("begun", [False, True])
def test_what_the_first_versions_put_where_nothing_was(stack, begun):
    """It left no mark: it goes again, but never where an undo had begun and its stage is gone."""
    aside = max(stack.folder.glob("restore/previous-*/volumes/nodered"))
    shutil.rmtree(aside)
    if begun:
        shutil.rmtree(stack.folder / "restore/one")
    told = stack.run("undo --yes")
    assert (stack.folder / "volumes/nodered").exists() == begun
    if begun:
        assert (told.returncode, "is gone" in told.stderr) == (1, True)
        assert "--leave-gone" in told.stderr
    else:
        assert told.returncode == 0, told.stderr
