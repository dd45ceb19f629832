"""A saboteur at every command that changes a target, and a stack so small that a restore is quick.

Each such command goes through flock(1), so the saboteur stands in its place: it counts the calls,
and at the one that is asked for it fails, or stops and waits for a test that kills something.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

from stand import compose_up, count_points, query, remove_iotstack, wait_ping, write_points
from stand_machine import PATH, PROGRAM, USER, StandError, wait_for

LIMIT_S = 300
RUNTAG = "t1"

# A call that is stopped "before" holds the lock, as the command itself would.
_WRAPPER = """#!/bin/sh
here={here}
[ "$1" = --shared ] || exec $here/real "$@"
guard=$2; shift 2
count=$(($(cat $here/count) + 1)); echo $count > $here/count
printf '%s ' "$count" "$@" | tr '\\n' ' ' >> $here/calls; echo >> $here/calls
read -r at how < $here/plan
[ "$count" = "$at" ] || exec $here/real --shared "$guard" "$@"
halt='touch "$0/reached"; n=0
  while [ ! -e "$0/go" ] && [ $n -lt 6000 ]; do sleep 0.02; n=$((n + 1)); done
  act=$(cat "$0/go"); rm -f "$0/reached"'
case $how in
  "fail before") echo "on purpose" >&2; exit 1 ;;
  "fail after") $here/real --shared "$guard" "$@"; echo "on purpose" >&2; exit 1 ;;
  "stop before") exec $here/real --shared "$guard" sh -c "$halt"'
      [ "$act" = act ] || exit 1
      exec "$@"' $here "$@" ;;
  "stop after") $here/real --shared "$guard" "$@"; code=$?; sh -c "$halt" $here; exit $code ;;
esac
exit 99
"""


class Saboteur:
    """Stands in the place of flock(1), or another program, on a machine while the block runs."""

    def __init__(self, machine, program="flock", wrapper=_WRAPPER):
        self.machine = machine
        self.folder = machine.folder / f"saboteur-{program}"
        self.program = shutil.which(program, path=PATH)
        self.wrapper = wrapper

    def __enter__(self):
        self.folder.mkdir()
        self.folder.chmod(0o777)
        shutil.copy(self.program, self.folder / "real")
        wrapper = self.folder / "wrapper"
        wrapper.write_text(self.wrapper.format(here=self.folder))
        wrapper.chmod(0o755)
        self.disarm()
        self.machine.run(["mount", "--bind", wrapper, self.program])
        return self

    def __exit__(self, *error):
        # Lazily: a call that was stopped may still be waiting.
        self.machine.run(["umount", "--lazy", self.program])
        shutil.rmtree(self.folder)

    def arm(self, number, how):
        """Act at the call of that number, counted from now."""
        self.disarm()
        self._put("plan", f"{number} {how}")

    def disarm(self):
        """Count from now on, and act at no call."""
        for name in ("reached", "go"):
            (self.folder / name).unlink(missing_ok=True)
        self._put("plan", "0 nothing")
        self._put("count", "0")
        self._put("calls", "", end="")

    def _put(self, name, text, end="\n"):
        path = self.folder / name
        path.write_text(text + end)
        path.chmod(0o666)

    def calls(self):
        """The commands that were run since it was armed, in their order."""
        return (self.folder / "calls").read_text().splitlines()

    def reached(self):
        """Whether the call was reached, where it is to stop."""
        return (self.folder / "reached").exists()

    def release(self, act):
        """Let the stopped call act, or end without acting."""
        (self.folder / "go.part").write_text("act" if act else "skip")
        os.replace(self.folder / "go.part", self.folder / "go")
        with contextlib.suppress(StandError):  # it may have been killed
            wait_for("the call's end", lambda: not self.reached(), timeout=2)


# Another program that first waits, at every call, until it is told to go on.
WAITING = """#!/bin/sh
touch {here}/reached; n=0
while [ ! -e {here}/go ] && [ $n -lt 3000 ]; do sleep 0.02; n=$((n + 1)); done
exec {here}/real "$@"
"""

_COMPOSE = """
version: '3.6'
services:
  influxdb:
    container_name: influxdb
    image: "influxdb:1.6"
    restart: unless-stopped
    ports: ["127.0.0.1:8086:8086"]
    environment: [INFLUXDB_MONITOR_STORE_ENABLED=FALSE]
    volumes:
      - ./volumes/influxdb/data:/var/lib/influxdb
      - ./backups/influxdb/db:/var/lib/influxdb/backup
  nodered:
    container_name: nodered
    image: "nodered:stand"
    restart: unless-stopped
    volumes: ["./volumes/nodered/data:/data"]
  asleep:
    container_name: asleep
    image: "nodered:stand"
"""


class Scene:
    """A stack on `target` that is unlike its backup, and the program, run on `pi`, to act on it.

    Where `target` is another machine than `pi`, the restore goes over SSH.
    """

    compose, env = _COMPOSE, "TZ=Etc/UTC\n"
    containers = ("influxdb", "nodered")
    """Those that run."""
    idle = ("asleep",)
    empty_folders = ("volumes/influxdb/data", "backups/influxdb/db")
    written_alone = ("volumes/influxdb/data",)
    """Folders of the stack in which servers write by themselves."""

    def __init__(self, pi, target):
        self.pi, self.target = pi, target
        # Where the package is not the checkout's: a copy of it that nobody changes meanwhile.
        self.python = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        remove_iotstack(target)
        self.top = target.home_of(USER) / "IOTstack"
        self.over_ssh = target is not pi
        self.settings = pi.home_of(USER) / f"faults-{target.name}.toml"
        self.saved = target.folder / "saved"
        shutil.rmtree(self.saved, ignore_errors=True)
        self._make()
        folder = self.top if not self.over_ssh else pi.home_of(USER) / "empty"
        folder.mkdir(exist_ok=True)
        text = f'[stack]\nfolder = "{folder}"\n'
        if self.over_ssh:
            pi.may_log_in_to(target, {target.name: (22, USER)})
            text += f'[[hosts]]\nname = "{target.name}"\nhost = "{target.name}"\n'
        self.settings.write_text(text)
        self._back_up()
        self.source = self.look_into_databases()
        self._change()
        self._change_databases()
        target.run(["docker", "stop", *self.containers])
        target.run(["cp", "-a", "-T", self.top, self.saved])
        target.run(["docker", "start", *self.containers])
        self.wait()
        self.old = self.look()

    def _make(self):
        """Lay the stack out as it is when the backup is made."""
        files = {
            "docker-compose.yml": self.compose,
            ".env": self.env,
            "services/nodered/service.yml": "nodered: {}\n",
            "volumes/nodered/data/flows.json": "[1]",
            "volumes/nodered/data/ two\nlines": "x",
            "volumes/new/here": "new on the target",
        }
        for name, text in files.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in self.empty_folders:
            (self.top / name).mkdir(parents=True)
        data = self.top / "volumes/nodered/data"
        (data / "second").hardlink_to(data / "flows.json")
        (data / "link").symlink_to("/etc/hostname")
        (data / "shared").mkdir()
        for path in (self.top, *self.top.rglob("*")):
            os.chown(path, 1000, 1000, follow_symlinks=False)
        os.chown(data / "shared", 33, 1000)
        (data / "shared").chmod(0o2775)
        os.chown(data / "flows.json", 1883, 33)
        (data / "flows.json").chmod(0o640)
        self._start()
        self._fill_databases()

    def _start(self):
        compose_up(self.target, *self.containers, *self.idle, user=USER)
        self.target.run(["docker", "stop", *self.idle])

    def wait(self, timeout=60):
        """Wait until the databases answer."""
        wait_ping(self.target, timeout)

    def _fill_databases(self):
        write_points(self.target, "home", *[f"cpu value={n} {n}000000000" for n in range(1, 50)])
        query(self.target, "CREATE USER anna WITH PASSWORD 'geheim' WITH ALL PRIVILEGES")
        query(
            self.target,
            'CREATE CONTINUOUS QUERY "means" ON "home" BEGIN SELECT mean("value") INTO "mean" FROM '
            '"cpu" GROUP BY time(1h) END',
        )

    def _back_up(self):
        """Make the backup on the target itself; it is found in its own backups/."""
        own = self.target.home_of(USER) / "own.toml"
        own.write_text(f'[stack]\nfolder = "{self.top}"\nexclude_defaults = false\n')
        words = [*PROGRAM, "backup", "--runtag", RUNTAG]
        self.target.run(
            words, user=USER, env={"IOTSTACK_SETTINGS": str(own), **self.python}, timeout=LIMIT_S
        )

    def _change(self):
        """Make the stack unlike its backup in every way."""
        data = self.top / "volumes/nodered/data"
        (data / "flows.json").write_text("[2, 2]")
        (data / "second").unlink()
        (data / "shared").chmod(0o700)
        shutil.rmtree(self.top / "volumes/new")
        (self.top / ".env").unlink()
        (self.top / "services/nodered/service.yml").write_text("nodered: {changed: true}\n")
        (self.top / "volumes/only here").mkdir()
        (self.top / "volumes/only here/it").write_text("stays")

    def _change_databases(self):
        write_points(self.target, "home", "cpu value=77 77000000000")
        write_points(self.target, "other", "mem value=1 1000000000")
        query(self.target, "CREATE USER bert WITH PASSWORD 'anders'")

    # The program.

    def words(self, task, *more):
        """The words of the program for a task on the target."""
        host = ("--host", self.target.name) if self.over_ssh else ()
        if task == "restore":
            more = ("--runtag", RUNTAG, "--from", self._from, "--jobs", "1", *more)
        confirmed = () if task in {"rehearse", "backup"} else ("--yes",)
        if task == "undo":
            more = ("--last-restore", *more)
        return (*PROGRAM, task, *host, *confirmed, *more)

    @property
    def _from(self):
        return "here"

    def start(self, task, *more):
        """Start a task; what it says goes to a file."""
        said = (self.target.folder / "said").open("w+")
        env = {"IOTSTACK_SETTINGS": str(self.settings), **self.python}
        process = self.pi.popen(
            self.words(task, *more), user=USER, env=env, stdout=said, stderr=subprocess.STDOUT
        )
        process.said = said
        return process

    def end(self, process):
        """Wait for the end of a task; return its exit code and what it said."""
        try:
            code = process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            code = "no end"
        finally:
            process.end()
        process.said.seek(0)
        text = process.said.read()
        process.said.close()
        assert code != "no end", f"it hangs: {text}"
        assert "Traceback" not in text, text[-1500:]
        return code, text

    def run(self, task, *more):
        """Run a task to its end; return its exit code and what it said."""
        return self.end(self.start(task, *more))

    def cut(self):
        """End every SSH session of the target, as a broken line does."""
        lines = self.target.run(["ps", "-eo", "pid,args"]).stdout.splitlines()
        pids = [one.split()[0] for one in lines if f"sshd: {USER}" in one]
        self.target.run(["kill", "-9", *pids], check=False)

    # The world.

    def look(self):
        """What a user of the stack would find: its files, its points, its containers."""
        listed = ["docker", "ps", "--all", "--format", "{{.ID}} {{.Names}} {{.State}}"]
        containers = self.target.run(listed).stdout
        self.wait(20)
        return {
            **tree(self.top, self.written_alone),
            **self.look_into_databases(),
            "containers": sorted(containers.splitlines()),
        }

    def look_into_databases(self):
        """All that the databases hold."""
        users = query(self.target, "SHOW USERS")[0][0].get("values", [])
        queries = query(self.target, "SHOW CONTINUOUS QUERIES")[0]
        return {
            "points": count_points(self.target),
            "users": sorted(map(tuple, users)),
            "queries": [each for each in queries if each.get("values")],
        }

    def is_restored(self, found):
        """Whether databases hold what the backup holds, and beside it what came since."""
        wanted = {
            "points": self.source["points"] | {("other", "autogen", "mem"): 1},
            "users": sorted([*self.source["users"], ("bert", False)]),
        }
        return self.source | wanted == {key: found[key] for key in self.source}

    @property
    def journal(self):
        """What is to be undone."""
        return self.top / "restore/.journal"

    def leftovers(self):
        """What no end of a restore may leave behind."""
        found = [self.journal] if self.journal.exists() else []
        for pattern in (
            "backups/*.undo",
            "backups/influxdb/db/*.partial",
            "restore/*/*.partial",
            "restore/previous-*",
            "restore/influxdb-*",
            "restore/*/databases/*",
            "restore/rehearsal",
            "volumes/.*",
            "volumes/influxdb/.*",
            "volumes/influxdb/data/.*",
        ):
            found += self.top.glob(pattern)
        return [str(each.relative_to(self.top)) for each in found]

    def clear(self):
        """Remove what a restore keeps for the next one, so that each case begins alike."""
        shutil.rmtree(self.top / "restore", ignore_errors=True)
        for path in (self.top / "backups/influxdb/db").iterdir():
            shutil.rmtree(path)
        for pattern in ("*.restore-*", "reload-*"):
            for path in (self.top / "backups").glob(pattern):
                path.unlink()

    def renew(self):
        """Put the stack back to its old state by force, whatever it is in."""
        wait_for("the guard", self._guard_is_free)
        run = self.target.run
        listed = run(["docker", "ps", "--all", "--format", "{{.Names}}"]).stdout.split()
        strange = {*listed} - {*self.containers, *self.idle}
        if strange:
            run(["docker", "rm", "--force", "--volumes", *strange])
        run(["docker", "stop", "-t", "5", *self.containers, *self.idle])
        run(["sh", "-c", f"rm -rf {self.top}/* {self.top}/.env*"])
        run(["cp", "-a", f"{self.saved}/.", self.top])
        run(["docker", "start", *self.containers])
        self.wait()

    def _guard_is_free(self):
        guard = self.top / "backups/.commands"
        words = ["flock", "--exclusive", "--nonblock", guard, "true"]
        return not guard.exists() or not self.target.run(words, check=False).returncode

    def away(self):
        """Remove the stack."""
        remove_iotstack(self.target)


def tree(top, written_alone):
    """Every file of a stack but backups, stages and servers' own: kind, mode, owner, content."""
    found, inodes = {}, {}
    for folder, names, files in os.walk(top):
        place = os.path.relpath(folder, top)
        if place == ".":
            names[:] = [name for name in names if name not in {"backups", "restore"}]
        if place in written_alone:
            names.clear()
            files.clear()
        for name in (*names, *files):
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            key = os.path.normpath(os.path.join(place, name))
            found[key] = (facts.st_mode, facts.st_uid, facts.st_gid)
            if stat.S_ISREG(facts.st_mode):
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                first = inodes.setdefault(facts.st_ino, key)
                found[key] += (digest, facts.st_mtime_ns, facts.st_nlink, first)
            elif stat.S_ISLNK(facts.st_mode):
                found[key] += (os.readlink(path),)
    return found


def differing(one, other):
    """The names in which two looks differ, with both values."""
    names = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    return {name: (one.get(name), other.get(name)) for name in sorted(names)}
