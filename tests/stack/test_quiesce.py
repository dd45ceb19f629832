"""A service that was made quiet goes on, however the run ends; one that was quiet stays so."""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import folders
import pytest
from contexts import PlainContext, alive, until

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost, locked
from iotstack_invoke.services.known import packaged_recipes
from iotstack_invoke.stack import quiesce
from iotstack_invoke.stack.quiesce import Quiesce, Resume, quiet_of, stopped

# Holds the lock as a backup does, makes the service quiet, and is killed.
PATHS = f"{folders.TESTS}:{os.path.dirname(__file__)}"
RUN = """
import sys, time
sys.path[:0] = sys.argv[1].split(":")
from contexts import PlainContext
from test_quiesce import Calm, Service, Words
from iotstack_invoke.hosts.local import LocalHost, locked
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.stack.quiesce import Resume
service = Service(sys.argv[2])
host = LocalHost(sys.argv[2])
scene = PlainContext({"pi": host})
journal = Journal(host, f"{sys.argv[2]}/.journal", [Calm], bind=Words)
with locked(f"{sys.argv[2]}/.lock", "backup"):
    journal.recover(host.lines(journal.path))
    print("begun", flush=True)
    quiet = service.quiet(kind=Calm)
    journal.write("general", quiet)
    quiet.do(scene)
    print("quiet", flush=True)
    if sys.argv[3] == "stay":
        time.sleep(600)
    Resume(quiet).do(scene)
    journal.forget("general")
"""


class Calm(Quiesce):
    """One whose words the folder of its mark tells, as the recipe of a container does else."""

    @classmethod
    def revived(cls, _access, mark, **_known):
        return Service(os.path.dirname(mark)).quiet()


class Words:
    """What a target says of the steps in a journal."""

    def access(self, role):
        return HostAccess(role)

    def word(self, _field):
        return ()

    def refuse(self, steps):
        assert [type(each) for each in steps] in ([], [Quiesce])


@dataclass
class Service:
    """A file that says how a service is; each change of it is a line of another."""

    folder: str

    def quiet(self, *, enter="", leave="", name="X", kind=Quiesce):
        """Return the quiet of the service; `enter` and `leave` are more commands before."""

        def change(to, before):
            script = f"{before or ':'} && echo {to} > state && echo {to} >> changes"
            return ("sh", "-c", f"cd {shlex.quote(self.folder)} && {script}")

        return kind(
            HostAccess("pi"),
            name,
            ask=("cat", f"{self.folder}/state"),
            awake="awake",
            enter=change("quiet", enter),
            leave=change("awake", leave),
            mark=f"{self.folder}/.quiet-x",
            lock=f"{self.folder}/.lock",
        )

    def read(self, name="state"):
        with open(f"{self.folder}/{name}") as stream:
            return stream.read().split()

    def put(self, state):
        for name in ("state", "changes"):
            with open(f"{self.folder}/{name}", "w") as stream:
                stream.write(f"{state}\n")

    @property
    def watchers(self):
        told = subprocess.run(["pgrep", "-f", self.quiet().mark], capture_output=True, check=False)
        return [pid for pid in told.stdout.split() if alive(int(pid))]


@pytest.fixture
def service(tmp_path):
    """A service that is awake; nobody watches it any more at the end."""
    made = Service(str(tmp_path))
    made.put("awake")
    yield made
    until(lambda: not made.watchers)


@pytest.fixture
def context(tmp_path):
    return PlainContext({"pi": LocalHost(str(tmp_path))})


def start(service, what="stay"):
    """Start a run, and return it when the service is quiet."""
    words = [sys.executable, "-c", RUN, PATHS, service.folder, what]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "begun\n"
    return run


def kill(run):
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()


def test_a_service_goes_on_after_the_copy(service, context):
    """It is quiet between the two steps, and nobody watches it afterwards."""
    quiet = service.quiet()
    with locked(quiet.lock, "backup"):
        quiet.do(context)
        assert service.read() == ["quiet"]
        assert len(service.watchers) > 0
        Resume(quiet).do(context)
    until(lambda: not service.watchers)
    assert service.read("changes") == ["awake", "quiet", "awake"]
    assert not os.path.exists(quiet.mark)


def test_the_end_of_a_good_run_leaves_the_lock_free(service, context):
    """The watcher never holds the lock of a run that ends well: the next one can begin at once."""
    quiet = service.quiet()
    for _ in range(20):
        with locked(quiet.lock, "backup"):
            quiet.do(context)
            Resume(quiet).do(context)
    assert service.read("changes") == ["awake", *["quiet", "awake"] * 20]


def test_what_was_quiet_stays_so(service, context):
    """A service that is quiet already is neither entered nor left, not even by the undo."""
    service.put("quiet")
    quiet = service.quiet()
    quiet.do(context)
    Resume(quiet).do(context)
    quiet.undo(context.host("pi"))
    assert service.read("changes") == ["quiet"]
    assert service.watchers == []


def test_a_killed_run_leaves_the_service_awake_within_seconds(service):
    """SIGKILL of the run: the watcher lets the service go on, again the next time."""
    for _ in range(2):
        run = start(service)
        assert run.stdout.readline() == "quiet\n"
        kill(run)
        killed_s = time.monotonic()
        until(lambda: service.read() == ["awake"])
        assert time.monotonic() - killed_s < 10
        until(lambda: not service.watchers)
    assert service.read("changes") == ["awake", *["quiet", "awake"] * 2]


def test_a_run_that_comes_at_once_lets_the_service_go_on(service):
    """What starts right after the SIGKILL waits for who leaves, or leaves itself: but once."""
    run = start(service)
    assert run.stdout.readline() == "quiet\n"
    kill(run)
    while (run := subprocess.run(
        [sys.executable, "-c", RUN, PATHS, service.folder, "end"],
        capture_output=True, text=True, check=False,
    )).returncode:  # fmt: skip
        assert "Busy" in run.stderr
    assert service.read("changes") == ["awake", "quiet", "awake", "quiet", "awake"]


def test_an_entering_that_outlives_its_run_is_waited_for(service, context):
    """A stop that goes on after the SIGKILL ends before the start, and does not undo it."""
    quiet = service.quiet(enter="touch entering; sleep 3")
    script = RUN.replace("(kind", "(enter='touch entering; sleep 3', kind")
    words = [sys.executable, "-c", script, PATHS, service.folder, "stay"]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    until(lambda: os.path.exists(f"{service.folder}/entering"))
    kill(run)
    until(lambda: service.read("changes") == ["awake", "quiet", "awake"])
    until(lambda: not os.path.exists(quiet.mark))


def test_the_journal_lets_go_on_what_a_power_cut_left(service, context):
    """Without a watcher the next run leaves the quiet, by the line of the journal alone."""
    host = context.host("pi")
    path = f"{service.folder}/.journal"
    quiet = service.quiet(kind=Calm)
    Journal(host, path, [Calm]).write("general", quiet)
    host.append(quiet.mark, "X")
    service.put("quiet")
    Journal(host, path, [Calm], bind=Words).recover(host.lines(path))
    assert service.read() == ["awake"]
    Journal(host, path, [Calm], bind=Words).recover(host.lines(path))
    assert service.read("changes") == ["quiet", "awake"]


def test_an_entering_that_fails_is_told_and_left_again(service, context):
    """What may have been done half is left by the undo."""
    quiet = service.quiet(enter="echo 'no such app' >&2; exit 4")
    with locked(quiet.lock, "backup"):
        with pytest.raises(StepFailed, match="no such app"):
            quiet.do(context)
        quiet.undo(context.host("pi"))
    assert service.read() == ["awake"]
    assert not os.path.exists(quiet.mark)


# `docker exec`: what it starts has a session of its own, and gets no signal.
EXEC = """#!/bin/sh
shift 4
setsid "$@" &
wait $!
"""
PHP = """#!/bin/sh
cd FOLDER
case $3 in
--on) [ ! -e slow ] || sleep 3; echo enabled > state ;;
--off) [ ! -e slower ] || sleep 3; echo disabled > state ;;
*) cat state ;;
esac
"""


def test_an_entering_that_is_late_ends_in_its_container(tmp_path, context, monkeypatch):
    """It would make the service quiet when nobody lets it go on any more; a late leaving is told."""
    for name, text in {"docker": EXEC, "php": PHP.replace("FOLDER", str(tmp_path))}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "state").write_text("disabled")
    (tmp_path / "slow").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(quiesce, "INSIDE_LIMIT_S", 1)
    where = (str(tmp_path / ".quiet-nextcloud"), str(tmp_path / ".lock"))
    recipe = packaged_recipes()["nextcloud"]
    access = HostAccess("pi", docker=(str(tmp_path / "docker"),))
    quiet = quiet_of(access, "nextcloud", recipe, "nextcloud", *where)
    with locked(where[1], "backup"):
        with pytest.raises(StepFailed, match=r"`.*--on` did not end within 1 s and was stopped"):
            quiet.do(context)
        (tmp_path / "slower").touch()
        with pytest.raises(StepFailed, match=r"did not resume .*--off` did not end within 1 s"):
            quiet.undo(context.host("pi"))
        (tmp_path / "slower").unlink()
        quiet.undo(context.host("pi"))
        quiet.wait(context.host("pi"))
        time.sleep(3)
        assert (tmp_path / "state").read_text() == "disabled\n"
        (tmp_path / "slow").unlink()
        quiet.do(context)
        assert (tmp_path / "state").read_text() == "enabled\n"
        Resume(quiet).do(context)
        assert (tmp_path / "state").read_text() == "disabled\n"


def test_one_that_does_not_tell_its_state_is_not_touched(service, context):
    """Without an answer nobody knows whether to leave it: so it is not entered."""
    os.unlink(f"{service.folder}/state")
    with pytest.raises(StepFailed, match="No such file"):
        service.quiet().do(context)
    assert service.read("changes") == ["awake"]


def test_a_leaving_that_fails_tells_what_to_type(service, context):
    """The warning names the service and the command, and the mark stays for the next try."""
    quiet = service.quiet(leave="[ -e mended ]", name="Nextcloud")
    with locked(quiet.lock, "backup"):
        quiet.do(context)
        Resume(quiet).do(context)
        (told,) = context.warned
        assert told.startswith("Nextcloud did not resume (")
        assert f"Run: {shlex.join(quiet.leave)} Its files were saved before." in told
        assert os.path.exists(quiet.mark)
        with open(f"{service.folder}/mended", "w"):
            pass
        quiet.undo(context.host("pi"))
    assert service.read() == ["awake"]


def test_one_that_does_not_come_up_again_is_named(service, context, monkeypatch):
    """Its command did well, and it is not awake: that is a warning with its name."""
    monkeypatch.setattr(quiesce, "AWAKE_LIMIT_S", 0.2)
    quiet = service.quiet(leave="rm -f .quiet-x; exit 0", name="Container bolt")
    with locked(quiet.lock, "backup"):
        quiet.do(context)
        Resume(quiet).do(context)
    (told,) = context.warned
    assert told.startswith("Container bolt did not resume (its state after 0.2 s: quiet)")


def test_a_container_is_stopped_and_restarted():
    """What a person sees are docker's own commands."""
    quiet = stopped(HostAccess("pi"), "bolt", "/stack/backups")
    assert quiet.commands() == ("docker stop --time 60 bolt",)
    assert Resume(quiet).commands() == ("docker restart --time 60 bolt",)
