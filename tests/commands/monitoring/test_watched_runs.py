"""People are told once of what happened to a run, however it ended. The program runs as a whole."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contexts import until
from listeners import listening
from person import Person

from iotstack_invoke.commands.monitoring.watched_run import SEEN_AT_ONCE
from iotstack_invoke.monitoring.run_records import process_mark


@pytest.fixture
def listener():
    with listening() as found:
        yield found


@pytest.fixture
def watched(little_stack, listener):
    """Let a ping and a phone hear of the stack's runs."""
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[notify]]\nname = "hc"\nkind = "ping"\nurl = "{listener.url}/ping/u"\n'
            f'[[notify]]\nname = "phone"\nkind = "ntfy"\nurl = "{listener.url}/phone"\n'
        )
    return little_stack


def titles(listener):
    return [each["title"] for each in listener.heard if each["path"] == "/phone"]


def pings(listener):
    return [each.rpartition("/")[2] for each in listener.paths("/ping/")]


def state(stack):
    """Return the folder of what is noted of the runs."""
    (found,) = Path(stack.environment["HOME"], ".local/state/iotstack/monitoring").iterdir()
    return found


def test_a_good_run_is_a_ping_and_no_message(watched, listener):
    """The monitor hears of its start and its end; nobody's phone rings."""
    done = watched.run("backup")
    assert (done.returncode, done.stderr) == (0, "")
    assert pings(listener) == ["start", "0"]
    assert titles(listener) == []


def test_a_failure_is_told_once_and_its_end_once(watched, listener):
    """Three failures in a row are one message, and the good run after them another."""
    watched.run("backup")
    (watched.folder / "docker-compose.yml").rename(watched.folder / "away.yml")
    for _ in range(3):
        assert watched.run("backup --runtag broken").returncode not in (0, 3)
    (watched.folder / "away.yml").rename(watched.folder / "docker-compose.yml")
    assert watched.run("backup --runtag good").returncode == 0
    host = os.uname().nodename
    assert len(titles(listener)) == 2
    assert titles(listener)[0].startswith(f"backup of {host} ")
    assert titles(listener)[1] == f"backup of {host} is good again"
    assert pings(listener)[::2] == ["start"] * 5
    assert pings(listener)[-1] == "0"
    assert "0" not in pings(listener)[3:8:2]


def test_a_dry_run_is_not_told(watched, listener):
    """Nor a look at the help, nor a task that changes nothing."""
    assert watched.run("backup --dry-run").returncode == 0
    assert watched.run("prune --dry-run").returncode == 0
    assert watched.run("list").returncode == 0
    assert listener.heard == []
    assert not Path(watched.environment["HOME"], ".local").exists()


def test_another_task_does_not_ping_for_the_backup(watched, listener):
    """A prune each day must not hide that no backup comes."""
    watched.run("backup")
    before = len(listener.heard)
    assert watched.run("prune --yes").returncode == 0
    assert listener.heard[before:] == []


def test_a_killed_run_is_told_by_the_next(watched, listener):
    """SIGKILL in mid-run leaves a record without an end; the next run says so, once."""
    watched.tool("docker", '[ -e "$0.gone" ] || { touch "$0.reached"; exec sleep 60; }')
    run = watched.start("backup", start_new_session=True)
    reached = watched.tools / "docker.reached"
    until = time.monotonic() + 60
    while not reached.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    (watched.tools / "docker.gone").touch()
    assert watched.run("backup").returncode == 0
    told = titles(listener)
    assert "did not end: it was killed" in told[0]
    assert told[1:] == [f"backup of {os.uname().nodename} is good again"]
    assert watched.run("backup").returncode == 0
    assert titles(listener) == told


def test_a_unit_that_failed_tells_what_its_run_could_not(watched, listener):
    """A killed run is told by OnFailure= at once; one that told itself is not told twice."""
    watched.run("backup")
    path = state(watched) / "runs/backup.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "code": None, "ended_utc": "", "process": "1 1 x"}))
    assert watched.run("notify --unit iotstack-backup.service").returncode == 0
    assert watched.run("notify --unit iotstack-backup.service").returncode == 0
    assert len(titles(listener)) == 1
    assert "was killed" in titles(listener)[0]
    assert json.loads(path.read_text())["began_utc"] == told["began_utc"]


def test_a_unit_whose_run_never_began_is_told(watched, listener):
    """As if its settings or its program were broken: the message says where to look."""
    assert watched.run("notify --unit iotstack-verify.service").returncode == 0
    (told,) = [each for each in listener.heard if each["path"] == "/phone"]
    assert "journalctl -u iotstack-verify.service" in told["body"]


def test_a_start_that_failed_early_is_not_taken_for_an_older_failure(watched, listener):
    """Yesterday's run failed and said so; today the program could not even begin."""
    watched.environment["INVOCATION_ID"] = "yesterday"
    (watched.folder / "docker-compose.yml").unlink()
    assert watched.run("backup").returncode not in (0, 3)
    before = titles(listener)
    watched.environment["MONITOR_INVOCATION_ID"] = "yesterday"
    assert watched.run("notify --unit iotstack-backup.service").returncode == 0
    assert titles(listener) == before
    watched.environment["MONITOR_INVOCATION_ID"] = "today"
    watched.environment["MONITOR_SERVICE_RESULT"] = "exit-code"
    watched.environment["MONITOR_EXIT_STATUS"] = "2"
    assert watched.run("notify --unit iotstack-backup.service").returncode == 0
    assert len(titles(listener)) == len(before) + 1
    assert "systemd: exit-code 2." in listener.heard[-2]["body"] + listener.heard[-1]["body"]


@pytest.mark.parametrize("answer", [500, 404])
def test_a_notifier_that_fails_is_a_warning(watched, listener, answer):
    """The backup is as good as without it; its exit code too. No secret is in the warning."""
    listener.answer = answer
    done = watched.run("backup")
    assert done.returncode == 0
    assert f"[[notify]] hc was not notified: 127.0.0.1 answered {answer}" in done.stderr
    assert "/ping/u" not in done.stderr


def test_what_nobody_could_be_told_is_told_later(watched, listener):
    """The phone was off while the backup failed: the next failure tells it."""
    watched.run("backup")
    (watched.folder / "docker-compose.yml").unlink()
    listener.answer = 503
    watched.run("backup --runtag one")
    listener.answer = 200
    listener.heard.clear()
    watched.run("backup --runtag two")
    assert len(titles(listener)) == 1


def test_a_notifier_that_hangs_costs_no_more_than_its_limit(watched, listener, monkeypatch):
    """The run does not wait for it before it begins."""
    listener.hangs = True
    began = time.monotonic()
    run = watched.start("backup")
    first = ""
    while not first and time.monotonic() - began < 100:
        names = (
            os.listdir(watched.folder / "backups") if (watched.folder / "backups").exists() else []
        )
        first = next((name for name in names if name.endswith("manifest.json")), "")
        time.sleep(0.05)
    assert not listener.heard
    assert first  # the backup is finished, while the ping of its start still hangs
    _, err = run.communicate(timeout=120)
    assert run.returncode == 0
    assert err.count("hc was not notified: ") == 1


def test_a_record_that_others_may_write_is_not_believed(watched, listener):
    """What stands in it is not told to anybody."""
    watched.run("backup")
    path = state(watched) / "runs/backup.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "code": None, "messages": ["evil"], "process": "1 1 x"}))
    path.chmod(0o666)
    done = watched.run("backup")
    assert done.returncode == 0
    assert "is ignored" in done.stderr
    assert titles(listener) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "5", '{"code": 1}', "\0" * 100, '{"code": true}']
)
def test_a_damaged_record_is_none(watched, listener, content):
    """The run goes on, and writes it again."""
    watched.run("backup")
    for name in ("runs/backup.json", "troubles.json", "places.json"):
        (state(watched) / name).write_text(content)
    assert watched.run("backup").returncode == 0
    assert json.loads((state(watched) / "runs/backup.json").read_text())["code"] == 0


def test_a_process_is_known_by_more_than_its_number():
    """When it began, and which boot: its number may be another's by now."""
    mine = process_mark(os.getpid())
    assert mine.split()[0] == str(os.getpid())
    assert len(mine.split()) == 3
    assert process_mark(1 << 22) == ""


def test_notify_test_tells_which_worked(watched, listener):
    """Each row by its name; exit 1 if one did not."""
    done = watched.run("notify --test")
    assert (done.returncode, done.stdout) == (0, "hc: sent\nphone: sent\n")
    listener.token = "other"
    done = watched.run("notify --test")
    assert done.returncode == 1
    assert "[[notify]] phone was not notified: 127.0.0.1 answered 403" in done.stderr


def test_notify_without_notifiers_says_what_to_do(little_stack):
    """Exit 2, and the page with examples."""
    done = little_stack.run("notify --test")
    assert done.returncode == 2
    assert "Add a [[notify]] table" in done.stderr


def test_what_a_person_sees_at_once_is_no_message(watched, listener):
    """A ping has its end all the same: its monitor would wait for it, and then call."""
    (watched.folder / "docker-compose.yml").rename(watched.folder / "away.yml")
    code = Person(watched.words("backup"), watched.environment).ends()
    assert code in SEEN_AT_ONCE
    assert titles(listener) == []
    assert pings(listener) == ["start", str(code)]


BUG = """class LogCapture:
    def __init__(self, **_): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def getvalue(self): return ""
class NotifyType: FAILURE = WARNING = SUCCESS = ""
class Apprise:
    def add(self, url): self.url = url; return True
    def notify(self, **_): raise RuntimeError(self.url)
"""


def test_a_bug_of_a_notifier_costs_nothing_else(watched, listener, tmp_path):
    """The others are told, the exit code stays, and the text of the error, with the address, is not shown."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/apprise.py").write_text(BUG)
    watched.environment["PYTHONPATH"] = str(tmp_path / "lib")
    row = '[[notify]]\nname = "mail"\nkind = "apprise"\nurl = "mailto://s3cr3t"\non = ["always"]\n'
    with watched.settings.open("a") as stream:
        stream.write(row)
    watched.run("backup")
    path = state(watched) / "runs/backup.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "code": None, "ended_utc": "", "process": "1 1 x"}))
    done = watched.run("backup")
    assert done.returncode == 0
    assert "[[notify]] mail was not notified: RuntimeError in apprise.py, line " in done.stderr
    assert "s3cr3t" not in done.stderr + done.stdout
    assert len(titles(listener)) == 2
    assert pings(listener)[-1] == "0"


def test_a_state_folder_that_cannot_be_read_silences_nobody(watched, listener):
    """As a link to itself: the run is not recorded, and told all the same."""
    folder = Path(watched.environment["HOME"], ".local/state")
    folder.mkdir(parents=True)
    (folder / "iotstack").symlink_to("iotstack")
    (watched.folder / "docker-compose.yml").unlink()
    done = watched.run("backup")
    assert done.returncode not in (0, 3)
    assert "bug" not in done.stderr
    assert len(titles(listener)) == 1
    assert pings(listener) == ["start", str(done.returncode)]


@pytest.mark.parametrize(
    "line", ["notify --unit iotstack-backup.service", "monitor", "backup --runtag next"]
)
def test_a_run_that_is_killed_while_it_tells_people_is_told(watched, listener, line):
    """It failed, and its record says so; the unit of systemd, or the next run, tells it in its place, once."""
    watched.run("backup")
    path, text = state(watched) / "runs/backup.json", watched.settings.read_text()
    (watched.folder / "docker-compose.yml").rename(watched.folder / "away.yml")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        watched.settings.write_text(text.replace(f"{listener.url}/phone", silent_url))
        run = watched.start("backup", start_new_session=True)
        until(lambda: json.loads(path.read_text())["code"])
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    watched.settings.write_text(text)
    (watched.folder / "away.yml").rename(watched.folder / "docker-compose.yml")
    watched.run(line)
    watched.run("monitor")
    assert titles(listener)[0].endswith("was refused before anything was changed")
    assert len(titles(listener)) == 1 + ("next" in line)


def test_what_could_not_be_sent_is_sent_by_the_hourly_look(watched, listener):
    """The network was down at night, and the next backup comes a day later."""
    watched.run("backup")
    (watched.folder / "docker-compose.yml").rename(watched.folder / "away.yml")
    listener.answer = 503
    watched.run("backup --runtag one")
    listener.answer = 200
    listener.heard.clear()
    watched.run("monitor")
    watched.run("monitor")
    assert len(titles(listener)) == 1
    assert pings(listener) == []


def test_a_run_that_found_another_one_is_told_once(watched, listener):
    """By itself; its unit of systemd, which failed, has nothing to add."""
    watched.run("backup")
    path = state(watched) / "runs/backup.json"
    told = json.loads(path.read_text())
    active = {**told, "code": None, "ended_utc": "", "process": process_mark(os.getpid())}
    path.write_text(json.dumps(active))
    watched.environment["INVOCATION_ID"] = "mine"
    (watched.folder / "docker-compose.yml").unlink()
    watched.run("backup")
    before = titles(listener)
    assert len(before) == 1
    watched.environment["MONITOR_INVOCATION_ID"] = "mine"
    assert watched.run("notify --unit iotstack-backup.service").returncode == 0
    assert titles(listener) == before
    assert json.loads(path.read_text()) == active


def test_a_look_that_failed_is_over_with_the_next(watched, listener):
    """Its unit told it; another failure is told again, however soon it comes."""
    watched.run("backup")
    for _ in range(2):
        watched.run("notify --unit iotstack-monitor.service")
        assert watched.run("monitor").returncode == 0
    host = os.uname().nodename
    told = [f"monitor of {host} failed", f"monitor of {host} is good again"]
    assert titles(listener) == told * 2


@pytest.mark.parametrize("name", ["typo", "../../evil", "ü 'q'", "x" * 300])
def test_a_host_that_does_not_exist_is_told_and_no_metric(watched, listener, name):
    """Its record is a file in its folder, whatever its name."""
    watched.run("backup")
    done = watched.run(f"backup --host {shlex.quote(name)}")
    assert done.returncode == 2
    assert len(titles(listener)) == 1
    files = sorted(each.name for each in (state(watched) / "runs").iterdir())
    assert len(files) == 2
    assert all(each.endswith(".json") for each in files)
    shown = watched.run("metrics").stdout
    assert 'run_success{task="backup"}' in shown
    assert "backup@" not in shown


def test_the_phone_is_told_the_reason_that_the_terminal_showed_before(watched, listener):
    """The last lines on the terminal say `see above`; the message says why, as by the schedule."""
    with watched.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "/nonexistent/nas"\n')
    person = Person(watched.words("backup"), watched.environment)
    person.sees("copy the manifest to nas: failed, see above")
    assert person.ends() == 3
    print([(e["title"], e["body"]) for e in listener.heard])
    (body,) = [each["body"] for each in listener.heard if each["path"] == "/phone"]
    assert "The folder of vault 'nas' is missing: /nonexistent/nas." in body
    assert "see above" not in body
    listener.heard.clear()
    assert watched.run("backup").returncode == 3
    assert titles(listener) == []  # known already


def test_messages_name_the_program_as_it_was_started(watched, listener, tmp_path):
    """Who installed `iotstack` has no `inv`; whichever it was, the same trouble is one message."""
    with watched.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "/nonexistent/nas"\n')
    script = tmp_path / "iotstack"
    script.write_text("from iotstack_invoke.cli.command import main\nmain()\n")
    for words in ([sys.executable, script, "backup"], watched.words("backup")):
        subprocess.run(words, env=watched.environment, capture_output=True, check=False)
    print([(e["title"], e["body"]) for e in listener.heard])
    (body,) = [each["body"] for each in listener.heard if each["path"] == "/phone"]
    assert "`iotstack sync`" in body
    assert "inv sync" not in body


def test_short_runs_take_less_than_a_second(watched, listener):
    """Only whole seconds are known of a run: none is told with tenths."""
    assert watched.run("backup").returncode == 0
    (end,) = [each["body"] for each in listener.heard if each["path"].endswith("/0")]
    assert re.search(r"took (less than 1|\d+) s\.", end)


def test_a_run_that_was_killed_while_it_copied_is_seen(watched, listener, tmp_path):
    """The vault has a part of it: status warns, the message says to look there, and sync mends it."""
    (tmp_path / "nas").mkdir()
    with watched.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{tmp_path}/nas"\n'
            'limit_rate = "50K"\n'
        )
    assert watched.run("backup --runtag first").returncode == 0
    assert watched.run("status").returncode == 0
    (watched.folder / "volumes/nodered/large").write_bytes(os.urandom(1 << 20))
    copying = tmp_path / "nas/second.general-backup.tar.gz.partial"
    manifest = watched.folder / "backups/second.manifest.json"
    with watched.start("backup --runtag second") as process:
        until(lambda: copying.exists() and manifest.exists())
        process.kill()
    seen = watched.run("status")
    assert seen.returncode == 1
    assert "WARNING nas: second, which is here, is not completely there: inv sync;" in seen.stdout
    watched.run("monitor")
    (body,) = [each["body"] for each in listener.heard if each["path"] == "/phone"]
    assert "To see what it left: inv status" in body
    watched.settings.write_text(watched.settings.read_text().replace('limit_rate = "50K"', ""))
    assert watched.run("sync").returncode == 0
    assert watched.run("status").returncode == 0
