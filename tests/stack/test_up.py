"""Waiting for containers, against a `docker` that is a script: up is what stays up."""

import json
from dataclasses import replace

import pytest
from contexts import PlainContext
from docker_words import AWAY

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.parts.bundle import EndQuiet
from iotstack_invoke.stack import up
from iotstack_invoke.stack.compose_up import ComposeUp
from iotstack_invoke.stack.stop_start import StartContainers, StopContainers
from iotstack_invoke.stack.up import WaitForContainers
from iotstack_invoke.stack.volumes import MakeVolume


@pytest.fixture
def context():
    return PlainContext({"pi": LocalHost("/")})


class Clock:
    """A clock that only moves while somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    def sleep(self, time_s):
        self.now_s += time_s


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(up, "time", made)
    return made


@pytest.fixture
def docker(tmp_path, clock):
    """Return a maker of a docker whose n-th answer is the n-th of all, the last one ever after."""

    def make(*answers, names=("a",), vital=(), **given):
        for number, answer in enumerate(answers, 1):
            (tmp_path / f"answer{number}").write_text(f"{answer}\n")
        script = tmp_path / "docker"
        script.write_text(
            f"#!/bin/sh\ncd {tmp_path}\necho >> asked\nn=$(wc -l < asked)\n"
            f"[ $n -le {len(answers)} ] || n={len(answers)}\ncat answer$n\n"
        )
        script.chmod(0o755)
        wait = WaitForContainers(
            HostAccess("pi", docker=(str(script),)), names, vital=vital, **given
        )
        return wait, tmp_path / "asked"

    return make


def state(status, name="a", started="11:00:00", **more):
    told = {"Status": status, "StartedAt": f"2026-11-23T{started}Z", "ExitCode": 0, **more}
    return f"/{name} {json.dumps(told)}"


UP, LATER = state("running"), state("running", started="11:00:09")
DOWN, AGAIN = state("exited", ExitCode=1), state("restarting", ExitCode=1)


def test_a_container_that_stays_up_is_up(context, docker):
    """It is asked for as long as a program may take to end of itself."""
    wait, asked = docker(UP)
    wait.do(context)
    assert len(asked.read_text()) == 1 + up.SETTLE_S  # once a second
    assert context.warned == []


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((UP, UP, DOWN), r"did not keep running: it ended with exit 1\."),
        ((UP, AGAIN), "keeps stopping: it ended with exit 1, and Docker keeps restarting it"),
        ((DOWN,), r"did not keep running: it ended with exit 1\."),
    ],
)
@pytest.mark.parametrize("how", [{"vital": ("a",)}, {"strict": True}])
def test_a_container_that_ends_after_its_start_is_down(context, docker, answers, said, how):
    """One that was up for a moment is a failure, whether it ended or is started over and over."""
    wait, _ = docker(*answers, **how)
    with pytest.raises(StepFailed, match=f"Container a {said}"):
        wait.do(context)


def test_what_lacks_its_hardware_is_named_and_keeps_no_other_down(context, docker, clock):
    """In Docker's own words, and at once: it never comes up by itself."""
    error = 'error gathering device information:\nno such file "/dev/x"'
    lacks = state("created", "b", Error=error)
    wait, _ = docker(f"{lacks}\n{UP}", names=("b", "a"), vital=("a",))
    wait.do(context)
    assert clock.now_s == up.SETTLE_S
    said = 'error gathering device information: no such file "/dev/x"'
    assert context.warned == [
        f"Container b could not be started: {said}. After fixing it: docker start b"
    ]


def test_one_that_did_not_stay_up_before_is_not_waited_for(context, docker, clock):
    """It is given a moment, as what was restored may mend it; then it is named."""
    answers = [state("running", started=f"11:00:{n:02}") for n in range(5)]
    wait, _ = docker(*answers, AGAIN, unsteady=("a",))
    wait.do(context)
    assert clock.now_s < 2 * up.UNSTEADY_LIMIT_S
    (warning,) = context.warned
    assert "keeps restarting it, as before the restore" in warning
    wait, _ = docker(UP, unsteady=("a",))
    context.warned.clear()
    wait.do(context)
    assert context.warned == []


def test_a_container_that_came_back_must_stay_as_long(context, docker):
    """A new start begins the wait anew, even where nobody saw it down."""
    wait, asked = docker(UP, UP, LATER)
    wait.do(context)
    assert len(asked.read_text()) == 3 + up.SETTLE_S


def test_one_that_docker_starts_again_has_time_to_come_up(context, docker, clock):
    """Many programs end until their database answers."""
    wait, _ = docker(*[AGAIN] * 60, LATER)
    wait.do(context)
    assert (clock.now_s, context.warned) == (60 + up.SETTLE_S, [])
    wait, _ = docker(AGAIN)
    clock.now_s = 0
    wait.do(context)
    assert up.HEALTH_LIMIT_S < clock.now_s < up.HEALTH_LIMIT_S + 5
    assert "keeps stopping: it ended with exit 1" in context.warned[0]


def test_one_that_is_up_but_sick_is_a_warning(context, docker):
    """A health check that does not come good is told, and the restore is not thrown away."""
    wait, _ = docker(state("running", Health={"Status": "starting"}), vital=("a",))
    wait.do(context)
    assert context.warned == ["Running, but not healthy after 180 s: a."]
    assert "a (its health check reports starting)" in context.said[-1]


def test_one_that_was_sick_before_is_not_waited_for(context, docker, clock):
    """What was restored may mend it, and need not: it is told at the end, and is no warning."""
    wait, _ = docker(state("running", Health={"Status": "unhealthy"}), vital=("a",), sick=("a",))
    wait.do(context)
    assert (clock.now_s, context.warned) == (up.SETTLE_S, [])
    wait, _ = docker(state("exited", Health={"Status": "unhealthy"}), sick=("a",))
    wait.do(context)
    assert "Container a did not keep running" in context.warned[0]


def test_a_docker_that_does_not_answer_says_nothing_of_containers(context, tmp_path):
    """It is no container that is gone: that alone is told by Docker as no such object."""
    script = tmp_path / "docker"
    script.write_text('#!/bin/sh\necho "Cannot connect to the Docker daemon" >&2; exit 1\n')
    script.chmod(0o755)
    with pytest.raises(StepFailed, match="Cannot connect to the Docker daemon"):
        WaitForContainers(HostAccess("pi", docker=(str(script),)), ("a",)).do(context)
    script.write_text('#!/bin/sh\necho "Error: No such container: a" >&2; exit 1\n')
    WaitForContainers(HostAccess("pi", docker=(str(script),)), ("a",)).do(context)
    assert context.warned == ["Container a does not exist. After fixing it: docker compose up -d"]


STOPPED = """case "$1" in
inspect)
    case "$*" in
    *json*) printf '%s\\n' '/a {"Status": "running"}' '/b {"Status": "exited", "Error": "no device"}' ;;
    *) echo /a; echo /b ;;
    esac ;;
start) echo "$*" >> "$0.calls"; [ -e "$0.dead" ] || exit 1 ;;
esac
"""


def test_an_undo_ends_where_a_container_cannot_be_started_any_more(tmp_path):
    """Else it would be owed for ever, and no backup made; what is down is told."""
    script = tmp_path / "docker"
    script.write_text(f"#!/bin/sh\n{STOPPED}")
    script.chmod(0o755)
    step = StopContainers(
        HostAccess("pi", docker=(str(script),), guard=str(tmp_path / "guard")), ("a", "b")
    )
    assert step.undo(LocalHost("/")) == "Container b could not be started: no device."
    assert (tmp_path / "docker.calls").read_text() == "start a b\n"


@pytest.mark.parametrize(
    ("words", "there", "brought"),
    [("", "b", "docker compose"), ("", "", "docker compose"), ("no", "b", "docker-compose")],
)
def test_containers_that_ran_and_were_removed_are_named(
    tmp_path, monkeypatch, words, there, brought
):
    """As by `docker compose down`: an undo brings none of them back, and says what does."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("docker", "docker-compose"):
        script = tmp_path / name
        script.write_text(
            f'#!/bin/sh\n[ "$1" != inspect ] || {{ printf "%s" "{there and f"/{there}"}"; exit 1; }}\n'
            f'[ "$1" != compose ] || exit {1 if words else 0}\n'
        )
        script.chmod(0o755)
    step = StopContainers(HostAccess("pi", guard=str(tmp_path / "guard")), ("a", "b"))
    gone = "a" if there else "a, b"
    assert step.undo(LocalHost("/")) == (
        f"Not running as before, because they were removed: {gone} (`docker compose down` "
        f"removes containers). To create and start them, in the folder of the stack: {brought} "
        "up -d"
    )


def undoable(docker, guard):
    """The steps that bring something up, and need Docker to be undone."""
    words = (str(docker), "--project-directory", "/s", "--file", "/s/docker-compose.yml")
    return (
        StopContainers(HostAccess("pi", docker=(str(docker),), guard=guard), ("a",)),
        StartContainers(HostAccess("pi", docker=(str(docker),), guard=guard), ("a",)),
        ComposeUp(HostAccess("pi", docker=(str(docker),), guard=guard), words, ()),
        ComposeUp(HostAccess("pi", docker=(str(docker),), guard=guard), words, ("a",)),
        MakeVolume(
            HostAccess("pi", docker=(str(docker),), guard=guard), "v", (), own_label="previous-t1"
        ),
    )


GONE = 'case "$*" in *" ps "*) exit 0;; esac; echo "Error: No such volume: x" >&2; exit 1'


@pytest.mark.parametrize("away", AWAY, ids=["before 29", "29"])
@pytest.mark.parametrize("number", range(5))
def test_nothing_counts_as_undone_while_docker_is_away(tmp_path, number, away):
    """Nothing was looked at, stopped, started or removed then; what is gone needs nothing."""
    docker = tmp_path / "docker"
    step = undoable(docker, str(tmp_path / "guard"))[number]
    docker.write_text(f"#!/bin/sh\necho '{away}' >&2; exit 1\n")
    docker.chmod(0o755)
    with pytest.raises(StepFailed, match=away[:30]):
        step.undo(LocalHost("/"))
    docker.write_text(f"#!/bin/sh\n{GONE}\n")
    told = step.undo(LocalHost("/"))
    assert bool(told) == (number == 0)  # of containers that ran before


STUBBORN = """case "$*" in
*"ps --all --quiet"*) echo 1 ;;
*inspect*) echo /a ;;
*) echo "cannot kill container: permission denied" >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize("number", [1, 2, 3])
def test_nothing_is_put_back_under_a_container_that_runs_on(tmp_path, number):
    """What Docker could not stop or remove works on its files: the way back ends there, and says so."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n{STUBBORN}")
    docker.chmod(0o755)
    with pytest.raises(StepFailed, match="cannot kill container"):
        undoable(docker, str(tmp_path / "guard"))[number].undo(LocalHost("/"))


COMPOSE = """echo "$*" >> "$0.calls"
case "$*" in
"config --services") printf 'net\\nuser\\nstick\\n' ;;
"ps --all --quiet stick") [ "$MADE" = no ] || echo 1 ;;
"ps --all --quiet") echo 1 ;;
"up --detach --no-deps user") [ -e "$0.net" ] || { echo "ERROR: no network" >&2; exit 1; } ;;
"up --detach --no-deps net") : > "$0.net" ;;
"inspect "*) echo /db ;;
*) echo "ERROR: for stick  Cannot start service: no device" >&2
    echo "ERROR: Encountered errors while bringing up the project." >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize("made", ["yes", "no"])
def test_one_service_that_cannot_be_made_keeps_no_other_from_it(
    tmp_path, context, monkeypatch, made
):
    """One by one, and again while that gets further; the container tells the rest by itself."""
    script = tmp_path / "compose"
    script.write_text(f"#!/bin/sh\n{COMPOSE}")
    script.chmod(0o755)
    monkeypatch.setenv("MADE", made)
    words = (str(script),)
    step = ComposeUp(
        HostAccess("pi", docker=words, guard=str(tmp_path / "guard")), words, (), vital=("db",)
    )
    step.do(context)
    calls = (tmp_path / "compose.calls").read_text().splitlines()
    ups = [each.rpartition(" ")[2] for each in calls if "--no-deps" in each]
    assert ups[:3] == ["net", "user", "stick"]
    said = "Service stick is not running: ERROR: for stick  Cannot start service: no device."
    assert [each.partition(" After fixing it")[0] for each in context.warned] == [said]
    context.warned.clear()
    replace(step, waited_for=("db",)).do(context)  # who waits for it tells why it is not up
    assert len(context.warned) == (made == "no")
    step = ComposeUp(
        HostAccess("pi", docker=words, guard=str(tmp_path / "guard")), words, (), vital=("other",)
    )
    with pytest.raises(StepFailed, match="Container other could not be created") as caught:
        step.do(context)
    assert "stick: ERROR: for stick  Cannot start service: no device" in str(caught.value)
    with pytest.raises(StepFailed, match="exit 1"):
        ComposeUp(HostAccess("pi", guard=str(tmp_path / "guard")), words, (), strict=True).do(
            context
        )
    script.write_text(f"#!/bin/sh\n{COMPOSE}".replace("net\\nuser\\nstick\\n", ""))
    with pytest.raises(StepFailed, match="could not start anything: ERROR: for stick"):
        step.do(context)


@pytest.mark.parametrize("said", ["is not running", "is restarting, wait until it is running"])
def test_a_service_that_is_not_up_is_not_waited_for_to_go_on(tmp_path, context, said):
    """It was told already why; what to type when it runs is told, and nothing is undone."""
    ask = ("sh", "-c", f'echo "Error response from daemon: Container 1f {said}" >&2; exit 1')
    EndQuiet(HostAccess("pi"), "nextcloud", ask, "disabled", ("occ", "off")).do(context)
    (warning,) = context.warned
    assert warning.startswith(
        "Container nextcloud is not up, and its restored files are from while it was paused"
    )
    assert warning.endswith("When it is running, resume it: occ off")
