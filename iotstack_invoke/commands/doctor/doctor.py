"""What would make a backup fail, or a restore to a host, and how to fix it. Repairs nothing.

Every check has a time limit; one that cannot run is a finding and does not affect the others. They
are in the order in which to fix the problems.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import posixpath
import re
import secrets
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ... import __version__
from ...backups.verifications import HERE, failed_at
from ...core.dataclass import dataclass
from ...core.errors import (
    ExitCode,
    FolderMissing,
    Interrupted,
    IotstackError,
    Refused,
    StepFailed,
    WrongFolder,
)
from ...core.processes import signals_raised
from ...core.stack_folders import BACKUPS, RESTORE
from ...databases.influxdb.dump import DATA_INSIDE, FOLDERS_INSIDE, influx_version
from ...databases.sql.servers import run_in, servers_in
from ...environment.environment import Environment, Newest, newest_good
from ...environment.hooks import FIND_PROGRAM
from ...environment.stack_host import find_machine
from ...hosts.base import ANY_EXIT, Command, Host, Result, Storage
from ...hosts.inspect import (
    entries,
    free_bytes,
    host_name,
    is_read_only,
    mount_of,
    mount_points,
    points_away,
    remount,
    root_words_if_any,
)
from ...hosts.local import READ_ONLY, within
from ...hosts.pasted import host_flag, logging_in, over_ssh
from ...hosts.ssh_settings import Ssh
from ...hosts.trust import Trust
from ...monitoring.run_records import RunRecords
from ...reporting.report import Report, size_text
from ...settings.model import Hooks, HostConfig, Settings, VaultConfig
from ...stack.compose import COMPOSE_FILES, inspect_all, named
from ...stack.inside import is_in
from ...stack.stack_holdings import unused_told
from ...vaults.age import encrypting
from ...vaults.folder import unnamed_mount
from ..backup.coverage import gather_services, idle_rows, is_another, settings_for, why_skipped
from ..backup.disk_space import SpaceEstimate, estimate_space
from ..backup.facts import compose_file_in, gather_facts, gather_folder
from ..backup.namesakes import RENAME, is_namesake, namesake_in, namesake_told
from ..shared.checks import (
    APART,
    Finding,
    Severity,
    bad,
    failed,
    good,
    judge_age,
    judge_backups,
    judge_clocks,
    judge_compose,
    judge_databases,
    judge_device,
    judge_docker,
    judge_holdings,
    judge_hook,
    judge_influx,
    judge_influx2,
    judge_influx_version,
    judge_inodes,
    judge_journal,
    judge_layers,
    judge_mounts,
    judge_places,
    judge_program,
    judge_rows,
    judge_sets,
    judge_space,
    judge_sql,
    judge_sudo,
    judge_synchronised,
    judge_tar,
    warning,
)
from ..undo.gone import paths_named
from ..undo.interrupted import Owing
from ..undo.old_states import states_told
from .monitoring_findings import monitoring_findings
from .schedule import find_schedule

QUESTION_LIMIT_S = 15.0
DU_LIMIT_S = 60.0
VAULT_LIMIT_S = 60.0
UNANSWERED_EXIT = 124
"""timeout(1) exits with this after a timeout."""
FULL = re.compile(r"No space left|quota exceeded", re.IGNORECASE)
PROBE = ".iotstack-probe-"
UNKNOWN_NEED = "what the next backup takes is unknown"
LOOK_AT_BACKUPS = (
    'if [ ! -e "$1" ]; then [ -L "$1" ] && echo dangling || echo missing; '
    'elif [ ! -d "$1" ]; then echo file; '
    'else stat -L -c "%u %a" "$1"; [ -w "$1" ] && [ -x "$1" ] && echo writable; fi; true'
)

# Prints the existing start files; after each, its lines with the words.
WHICH_PRINTS = (
    'for f in "$HOME"/.bashrc "$HOME"/.bash_profile "$HOME"/.profile "$HOME"/.zshenv '
    '"$HOME"/.tcshrc "$HOME"/.cshrc "$HOME"/.config/fish/config.fish "$HOME"/.ssh/rc '
    "/etc/ssh/sshrc /etc/bash.bashrc /etc/zsh/zshenv /etc/csh.cshrc /etc/profile "
    '/etc/profile.d/*; do [ -f "$f" ] && [ -r "$f" ] || continue; echo "$f"; '
    '[ -z "$1" ] || grep -nF -e "$1" "$f" | sed "s/:/: /; s/^/ /"; done; true'
)

Question = Callable[[], Iterable[Finding]]


def tell_findings(settings: Settings, name: str, report: Report, *, as_json: bool) -> int:
    """Print the findings of this machine, or of a host; return 1 if one failed.

    Raises UsageError for a host that the settings do not name.
    """
    machine = find_machine(settings, name) if name else None
    found = []
    with signals_raised():
        for each in find_far(settings, machine) if machine else find_here(settings):
            found.append(each)
            if not as_json:
                report.finding(each.verdict.value, each.name, each.found, each.fix)
    if as_json:
        report.write_json([{**asdict(each), "verdict": each.verdict.value} for each in found])
    wrong = any(each.verdict is Severity.FAILED for each in found)
    return ExitCode.FAILED if wrong else ExitCode.GOOD


def answers(questions: Iterable[tuple[str, Question]]) -> Iterator[Finding]:
    """Yield the findings of each check; one that cannot run is a finding itself."""
    for name, question in questions:
        try:
            yield from question()
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - any error becomes a finding
            said = str(error) or repr(error)
            yield failed(name, f"does not answer: {said}", "fix the problems above first")


def find_here(settings: Settings) -> Iterator[Finding]:
    """Yield the findings of this machine, its backups and its vaults."""
    environment = Environment.of(settings)
    folder, sudo = environment.settings.stack.folder, settings.stack.sudo
    stack = _Examined(environment.host, settings, folder, sudo, settings.hooks)
    own, runs = _Backups(environment, stack), RunRecords(folder)
    try:
        yield from answers(
            (
                *stack.programs(),
                ("stack", own.folder),
                *stack.folders(),
                ("space", own.space),
                *stack.state("inv undo"),
                ("backups", own.sets),
                *((f"vault {name}", own.vault_question(name)) for name in environment.vaults),
                ("vaults", own.vaults),
                ("last backup", own.age),
                ("notify", lambda: monitoring_findings(settings)),
                ("schedule", lambda: find_schedule(environment.host, runs)),
            )
        )
    finally:
        environment.close()


def find_far(settings: Settings, machine: HostConfig) -> Iterator[Finding]:
    """Yield the findings of another machine; a single one if it is unreachable."""
    from ...hosts.ssh import open_host  # importing Fabric takes a fifth of a second

    again = " (to restore there, add --live)" if machine.role == "live" else ""
    yield good("role", machine.role + again)
    try:
        host = open_host(machine.ssh, machine.folder, machine.name)
    except IotstackError as error:
        if isinstance(error, Interrupted):
            raise
        yield unreached("reach", error, machine.ssh)
        return
    with contextlib.closing(host):
        yield good("reach", f"{machine.ssh.host} answers, and its key is known")
        yield from login_told(host)
        told = ask(host, "realpath", "--", machine.folder).out.strip()
        folder = told or ask(host, "realpath", "-m", "--", machine.folder).out.strip()
        folder = folder or machine.folder
        stack = _Examined(host, settings, folder, machine.sudo, machine.hooks, far=True)
        yield from answers(
            (
                ("machine id", lambda: [_identity(host, machine)]),
                ("name", lambda: _name(host, settings)),
                *stack.programs(),
                ("stack", lambda: [_far_folder(stack, machine, there=told.startswith("/"))]),
                *stack.folders(),
                ("space", lambda: [judge_space("space", free_bytes(host, stack.folder), None)]),
                *stack.state(f"inv undo{host_flag(machine.name)}"),
            )
        )
        yield good("vaults", "not checked: they are checked on the machine that makes the backups")


def unreached(name: str, error: IotstackError, ssh: Ssh) -> Finding:
    """Return the finding of an unreachable machine, or of a refused key."""
    if isinstance(error, StepFailed) and error.fix:
        return failed(name, error.why, error.fix)
    if isinstance(error, FolderMissing):
        return failed(name, str(error), "or correct `folder` in hosts.toml")
    return failed(name, str(error), f"{shlex.join(('ssh', '-v', *logging_in(ssh)))} shows more")


def login_told(storage: Any, topic: str = "login") -> Iterator[Finding]:
    """Yield what a machine's login shell prints before each command, and from which line.

    Nothing for a storage without a shell.
    """
    from ...hosts.login_shell import shown

    if not hasattr(storage, "login") or not hasattr(storage, "run"):
        return
    storage.run(Command(("true",), timeout_s=QUESTION_LIMIT_S))
    noise = storage.login.noise
    if not noise.strip():
        return
    words = shown(noise)
    told = ask(storage, "sh", "-c", WHICH_PRINTS, "sh", words).out.splitlines()
    files = [each for each in told if not each.startswith(" ")]
    lines, file = [], ""
    for each in told:
        file = file if each.startswith(" ") else each
        lines += [f"{file}:{each.strip()}"] if each.startswith(" ") else []
    where = "; ".join(lines) or f"some line of {', '.join(files)}"
    fix = f"make it print only on a terminal ([ -t 1 ] && …): {where}"
    yield warning(
        topic,
        f"prints: {words}. This program ignores it, but SFTP and scp fail because of it",
        fix,
    )


def ask(host: Host, *words: str) -> Result:
    """Return the result of a command; exit code 124 if it reached the time limit."""
    try:
        return host.run(Command(words, ANY_EXIT, QUESTION_LIMIT_S))
    except StepFailed as error:
        return Result(UNANSWERED_EXIT, "", str(error))


def _identity(host: Host, machine: HostConfig) -> Finding:
    told = ask(host, "cat", "/etc/machine-id").out.strip()
    if not machine.machine_id:
        return good("machine id", f"{told or 'it has none'}, not pinned in hosts.toml")
    if told == machine.machine_id:
        return good("machine id", "matches the pin in hosts.toml")
    fix = "correct host, or machine_id, in hosts.toml"
    return failed("machine id", f"is {told or 'unknown'}, different from the pinned one", fix)


def _name(host: Host, settings: Settings) -> Iterator[Finding]:
    """Yield that a machine has the name of this one, if both make backups."""
    own = f"{settings.stack.folder}/{BACKUPS}"
    if settings.vaults and os.path.isdir(own) and is_namesake(host):
        found = (
            f"is {host_name(host)}, the name of this machine too: in the vaults the backups of "
            "both are mixed"
        )
        yield failed("name", found, f"rename one of them: {RENAME}")


def _far_folder(stack: _Examined, machine: HostConfig, *, there: bool) -> Finding:
    if not there:
        fix = over_ssh(machine.ssh, "mkdir", "-p", machine.folder)
        return failed("stack", f"no folder {machine.folder}", fix)
    is_file = ask(stack.host, "sh", "-c", '[ -e "$1" ] && [ ! -d "$1" ]', "sh", stack.folder)
    if not is_file.exit_code:
        fix = f"set a folder there: `folder` of [[hosts]] '{machine.name}' in hosts.toml"
        return failed("stack", f"{machine.folder} is a file, not a folder", fix)
    names = entries(stack.host, stack.folder)
    compose = next((name for name in COMPOSE_FILES if name in names), "")
    return good("stack", f"{stack.folder}, {compose or 'without a compose file: a new machine'}")


@dataclass
class _Examined:
    """A stack on a machine, this one or another, and how to query it."""

    host: Host
    settings: Settings
    folder: str
    sudo: bool
    hooks: Hooks
    """Those that run on that machine."""
    far: bool = False

    @property
    def backups(self) -> str:
        return f"{self.folder}/backups"

    @cached_property
    def user_id(self) -> str:
        return ask(self.host, "id", "-u").out.strip()

    @cached_property
    def sudo_told(self) -> Result | None:
        if self.user_id == "0" or not self.sudo:
            return None
        return ask(self.host, "sudo", "-n", "true")

    @cached_property
    def as_root(self) -> tuple[str, ...]:
        return ("sudo", "-n") if self.sudo_told and not self.sudo_told.exit_code else ()

    @cached_property
    def docker(self) -> tuple[tuple[str, ...], Result]:
        """The words before a Docker command, and the engine's answer to them."""
        words: tuple[str, ...] = ("docker",)
        form = ("version", "--format", "{{.Server.Version}}")
        told = ask(self.host, *words, *form)
        # A restore uses Docker through sudo if it must; a backup does not.
        if self.far and self.as_root and "permission denied" in told.last_line:
            words = (*self.as_root, "docker")
            told = ask(self.host, *words, *form)
        return words, told

    @cached_property
    def owing(self) -> Owing:
        """Its journals, and who else may write what is read back."""
        trust = Trust(self.host, self.folder, self.as_root)
        return Owing(self.settings, self.host, self.folder, lambda: self.as_root, trust)

    @cached_property
    def has_influx(self) -> bool:
        """Whether InfluxDB's data are below volumes/."""
        told = ask(self.host, "test", "-d", f"{self.folder}/volumes/influxdb")
        return told.exit_code == 0

    def programs(self) -> tuple[tuple[str, Question], ...]:
        return (
            ("programs", self._programs),
            ("docker", lambda: [judge_docker(self.docker[1], needed=self.far or self.has_influx)]),
            ("compose", self._compose),
            ("sudo", lambda: [judge_sudo(self.user_id, self.sudo_told)]),
            ("hooks", self._hooks),
        )

    def folders(self) -> tuple[tuple[str, Question], ...]:
        return (
            ("backups", self._backups),
            ("restore", self._restore),
            ("mounts", self._mounts),
            ("inodes", self._inodes),
        )

    def state(self, undo: str) -> tuple[tuple[str, Question], ...]:
        def journal() -> list[Finding]:
            try:
                lines = self.owing.read()
                gone = paths_named(self.folder, (each.live for each in self.owing.gone(lines)))
                return [judge_journal(lines, undo, gone)]
            except Refused as error:
                return [
                    failed("journal", str(error), f"check it: ls -ln {shlex.quote(self.backups)}")
                ]

        return (
            ("clock", self._clock),
            ("containers", self._containers),
            ("journal", journal),
        )

    def _programs(self) -> Iterator[Finding]:
        if not self.far:
            version = f"{__version__}, Python {platform.python_version()}"
            yield good("iotstack-invoke", version)
        yield judge_tar(ask(self.host, "tar", "--version"))
        for name, package in (("flock", "util-linux"), ("sha256sum", "coreutils")):
            told = ask(self.host, name, "--version")
            yield judge_program(name, told, package, needed=self.far)
        if self.far:  # a backup from here needs it
            told = ask(self.host, "python3", "-c", "import sqlite3; print(sqlite3.sqlite_version)")
            found = judge_program("python3", told, "python3", needed=False)
            yield (
                replace(found, found=f"with SQLite {found.found}") if not told.exit_code else found
            )

    def _hooks(self) -> Iterator[Finding]:
        named = [
            (e.name, hook) for e in fields(self.hooks) for hook in getattr(self.hooks, e.name)
        ]
        asked = ((e, hook, ("sh", "-c", FIND_PROGRAM, "sh", hook.words[0])) for e, hook in named)
        judged = (judge_hook(name, hook, ask(self.host, *words)) for name, hook, words in asked)
        found = [each for each in judged if each]
        if named and not found:
            yield good("hooks", f"the programs of {', '.join(dict(named))} can run")
        yield from found

    def _compose(self) -> Iterator[Finding]:
        words, told = self.docker
        if told.exit_code == UNANSWERED_EXIT:  # its plugin would hang as well
            told = Result(UNANSWERED_EXIT, "", told.err)
            plugin = told
        else:
            plugin = ask(self.host, *words, "compose", "version")
        yield judge_compose(
            plugin, lambda: ask(self.host, "docker-compose", "version"), needed=self.far
        )

    def _backups(self) -> Iterator[Finding]:
        script = ("sh", "-c", LOOK_AT_BACKUPS, "sh", self.backups)
        told = ask(self.host, *script)
        there = "missing" not in told.out
        for folder in (self.folder, self.backups) if there else (self.folder,):
            if is_read_only(self.host, folder):
                yield failed("backups", f"{folder} {READ_ONLY}", remount(folder))
                return
        found, why = judge_backups(self.backups, told), self._others(self.backups)
        if not why:
            yield found
        elif found.verdict is Severity.GOOD:
            yield from self._written_by_others(self.backups)
        else:  # one command fixes both
            quoted = shlex.quote(self.backups)
            fix = f'sudo chown "$USER:" {quoted} && sudo chmod 0700 {quoted}'
            yield replace(found, found=f"{found.found}; {why}", fix=fix)

    def _restore(self) -> Iterator[Finding]:
        folder = f"{self.folder}/{RESTORE}"
        kinds = entries(self.host, self.folder)
        places = (self.folder, folder, *(f"{self.folder}/{name}" for name in APART))
        mine, theirs, *others = (mount_of(self.host, each, self.as_root) for each in places)
        yield judge_device(folder, mine, theirs, needed=self.far)
        others_apart = (name for name, at in zip(APART, others, strict=True) if at != mine)
        yield from judge_places(self.folder, kinds, (e for e in others_apart if e in kinds))
        yield from self._written_by_others(folder)
        told = states_told(self.host, self.folder, self.as_root)
        if told:
            far = host_flag(self.host.name) if self.far else ""
            yield good("old states", f"{told}; to list them: inv undo --list{far}")

    def _inodes(self) -> Iterator[Finding]:
        folder = self.folder
        while (told := ask(self.host, "df", "-Pi", folder)).exit_code == 1 and len(folder) > 1:
            folder = posixpath.dirname(folder)  # on a bare machine it does not exist yet
        yield judge_inodes(told)

    def _mounts(self) -> Iterator[Finding]:
        folder = ask(self.host, "realpath", "--", self.folder).out.rstrip("\n") or self.folder
        points = {each for each in mount_points(self.host) if is_in(each, folder)} - {folder}
        away = {each for each in points_away(self.host) if is_in(each, folder)}
        if points or away:
            yield from judge_mounts(folder, points, away, self._replaced(), needed=self.far)

    def _replaced(self) -> tuple[str, ...]:
        """Return the folders of databases here; none if Docker does not answer."""
        words, told = self.docker
        if told.exit_code:
            return ()
        found = inspect_all(self.host, words, QUESTION_LIMIT_S)
        servers = servers_in(found, self.settings.table)
        settings = settings_for(self.host, self.settings, found, words)
        influx = named(found, settings.influx.container)
        mounts = influx.mounts if influx else ()
        inside = (DATA_INSIDE, *FOLDERS_INSIDE)
        return (
            *(at for each in servers for at in (each.data, *each.apart) if at),
            *(each.on_host for each in mounts if each.inside.rstrip("/") in inside),
        )

    def _others(self, folder: str) -> str:
        """Return which other users may write what a run reads back, '' for none."""
        path, trust = f"{folder}/.", self.owing.trust
        owned = trust.stat([path])[path]
        return trust.others(owned) if owned.is_there and not owned.is_hidden else ""

    def _written_by_others(self, folder: str) -> Iterator[Finding]:
        if why := self._others(folder):
            quoted = shlex.quote(folder)
            fix = f'sudo chown "$USER:" {quoted} && sudo chmod go-w {quoted}'
            yield warning(posixpath.basename(folder), f"{folder}: {why}", fix)

    def _clock(self) -> Iterator[Finding]:
        yield judge_synchronised(ask(self.host, "timedatectl", "show", "-p", "NTPSynchronized"))
        if self.far:
            before_s = time.time()
            told = ask(self.host, "date", "+%s")
            yield judge_clocks(told, before_s, time.time())

    def _containers(self) -> Iterator[Finding]:
        words, told = self.docker
        if told.exit_code:
            fix = "repair docker first: see above"
            needed = self.far or self.has_influx
            yield bad("containers", "are unknown: Docker does not answer", fix, needed=needed)
            return
        found = inspect_all(self.host, words, QUESTION_LIMIT_S)
        settings = settings_for(self.host, self.settings, found, words)
        name = settings.influx.container
        influx = named(found, name)
        another = influx is not None and is_another(influx, settings)
        silent = another or (influx is None and why_skipped(settings, name))
        finding = None if silent else judge_influx(influx, name, has_data=self.has_influx)
        if finding is None and influx and not silent:
            version = influx_version(self.host, name, words, QUESTION_LIMIT_S)
            finding = judge_influx_version(influx, version)
        if finding:
            yield finding
        if ask(self.host, *self.as_root, "test", "-d", self.folder).exit_code == 1:
            return  # a bare machine: there is nothing to back up yet
        services = gather_services(
            self.host,
            found,
            settings,
            self.folder,
            root_words_if_any(self.host, sudo=settings.stack.sudo),
        )
        if services.influx2:
            yield judge_influx2(services.influx2)
        own = "" if another else name
        yield from judge_databases((each.cover for each in services.saved), own)
        for each in services.undumped:
            if each.container != own:
                yield warning(f"container {each.container}", each.why, each.cure)
        yield from judge_holdings(services.uncovered)
        yield from judge_layers(services.in_layers)
        yield from (good("unused", each) for each in unused_told(services.holdings.unused))
        if not self.far:
            yield from judge_rows(idle_rows(services, self.settings).values())
        for server in services.servers:
            asked = run_in(words, server, "ask", "SELECT version()", limit_s=QUESTION_LIMIT_S)
            yield judge_sql(server, self.host.run(asked))


@dataclass
class _Backups:
    """The backups of this machine, here and in its vaults."""

    environment: Environment
    stack: _Examined
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_refused: bool = False
    """The folder of the stack cannot be backed up, which was reported."""

    def folder(self) -> Iterator[Finding]:
        try:
            names = gather_folder(self.environment.host, self.environment.settings)
        except Refused as error:
            self.is_refused = True
            fix = f"{error.fix[:1].lower()}{error.fix[1:]}".rstrip(".")
            yield failed("stack", error.why.rstrip("."), fix)
            return
        compose = compose_file_in(self.environment.host, self.stack.folder, names)
        yield good("stack", f"{self.stack.folder}, {compose}")

    @cached_property
    def estimate(self) -> tuple[SpaceEstimate | None, str]:
        """The space that the next backup needs, or why that is unknown; measured once."""
        try:
            return self._measure(), ""
        except (Refused, StepFailed) as error:
            return None, str(error)

    def _measure(self) -> SpaceEstimate:
        if self.stack.docker[1].exit_code == UNANSWERED_EXIT:
            raise StepFailed("Docker does not answer.")
        facts = gather_facts(self.environment.host, self.environment.settings)
        return estimate_space(self.environment.host, facts, self.environment.sets(), DU_LIMIT_S)

    def space(self) -> Iterator[Finding]:
        folder = (
            self.environment.backups
            if os.path.isdir(self.environment.backups)
            else self.stack.folder
        )
        space, trouble = self.estimate
        if space:
            free = self.environment.host.free_bytes(folder)
            yield judge_space(
                "space", free, space.needed_bytes, space.takes, is_guess=space.is_guess
            )
        elif self.is_refused:
            yield warning("space", UNKNOWN_NEED, "repair the stack's folder first: see above")
        else:
            fix = "inv backup measures it, and refuses if there is too little space"
            yield warning("space", f"{UNKNOWN_NEED}: {trouble}", fix)

    def sets(self) -> Iterable[Finding]:
        return judge_sets(self.environment.sets())

    def age(self) -> Iterable[Finding]:
        newest = self._newest_good(HERE, self.environment.host, self.environment.backups)
        return judge_age("last backup here", newest, self.now)

    def _newest_good(self, at: str, storage: Storage, folder: str) -> Newest:
        failed = failed_at(self.environment.checks.newest(), at)
        return newest_good(storage, folder, self.now, host=socket.gethostname(), failed=failed)

    def vaults(self) -> Iterator[Finding]:
        if not self.environment.vaults:
            found = "none configured: backups are on this machine only"
            yield warning("vaults", found, "add [[vaults]] to hosts.toml")

    def vault_question(self, name: str) -> Question:
        """Return the check of a vault, with a time limit."""

        def question() -> tuple[Finding, ...]:
            space, _ = self.estimate  # measured first: du has a limit of its own
            topic = f"vault {name}"
            try:
                return within(VAULT_LIMIT_S, topic, lambda: tuple(self._vault(name, space)))
            except Interrupted:
                raise
            except IotstackError as error:
                vault = next(v for v in self.environment.settings.vaults if v.name == name)
                if isinstance(error, WrongFolder):
                    return (failed(topic, str(error), "set a folder elsewhere in hosts.toml"),)
                if isinstance(error, StepFailed) and error.fix:
                    return (failed(topic, error.why, error.fix),)
                if vault.ssh:
                    return (unreached(topic, error, vault.ssh),)
                if vault.remote:
                    return (
                        failed(
                            topic, str(error), f"rclone lsd {shlex.quote(vault.remote)} shows more"
                        ),
                    )
                return (
                    failed(topic, str(error), "mount it, or correct its folder in hosts.toml"),
                )

        return question

    def _vault(self, name: str, space: SpaceEstimate | None) -> Iterator[Finding]:
        storage, topic = self.environment.vaults[name], f"vault {name}"
        (vault,) = (each for each in self.environment.settings.vaults if each.name == name)
        storage.listdir(storage.root)
        yield from login_told(storage, f"{topic} login")
        if vault.write_once:
            yield good(
                topic, "is reachable; no test file is written, because it could not be removed"
            )
        else:
            yield probe(topic, storage, space_there(vault))
        yield from judge_encryption(f"{topic} encryption", vault.recipients)
        if vault.limit_rate:
            rate = vault.limit_rate.rate_at(self.now.astimezone().timetuple())
            limit = f"at most {size_text(rate)} a second" if rate else "no limit"
            yield good(f"{topic} speed", f"{limit}, there and back, at this time of day")
        drive = "" if vault.ssh or vault.mount else unnamed_mount(vault.folder)
        if drive:
            found = (
                f"is on the drive at {drive}; without that drive, copies would go to the "
                "disk below it"
            )
            yield warning(
                f"{topic} mount", found, f'add mount = "{drive}" to this vault in hosts.toml'
            )
        own = "" if self.environment.far else self.environment.backups
        if own and not vault.is_far and is_same_disk(vault.folder, own):
            yield warning(
                f"{topic} disk",
                "its copies are on the same file system as the backups here: one broken disk "
                "takes both",
                "use another drive, another machine or a cloud: inv init --copies",
            )
        yield judge_space(
            f"{topic} space",
            storage.free_bytes(storage.root),
            space.parts_bytes if space else None,
            fix=space_there(vault),
            is_guess=space is not None and space.is_guess,
        )
        newest = self._newest_good(name, storage, storage.root)
        here = self._newest_good(HERE, self.environment.host, self.environment.backups)
        yield from judge_age(f"last backup in {name}", newest, self.now, here)
        other = namesake_in(self.environment, name)
        if other:
            fix = f"rename one of them: {RENAME}"
            yield failed(f"{topic} names", namesake_told(name, other), fix)


def is_same_disk(one: str, other: str) -> bool:
    """Return whether two folders of this machine are on one file system; False if unknown."""
    try:
        return os.stat(one).st_dev == os.stat(other).st_dev
    except OSError:
        return False


def judge_encryption(topic: str, recipients: tuple[str, ...]) -> Iterator[Finding]:
    """Yield whether age can encrypt for the keys of a vault; nothing if its copies are plain."""
    if not recipients:
        return
    try:
        with encrypting(recipients, io.BytesIO()) as stream:
            stream.read()
    except StepFailed as error:
        yield failed(topic, error.why, error.fix or "check its `recipients` in hosts.toml")
        return
    count = "1 key" if len(recipients) == 1 else f"{len(recipients)} keys"
    yield good(topic, f"copies are encrypted for {count}")


def space_there(vault: VaultConfig) -> str:
    """Return how to free space in a vault: [stack] keep removes sets here only."""
    if vault.write_once:
        return "free some space there: this program cannot remove anything (write_once)"
    return (
        f"free some space there, or keep fewer: inv prune --at {vault.name} --keep N, or `keep` "
        "of that vault in hosts.toml"
    )


def probe(topic: str, storage: Storage, space: str = "") -> Finding:
    """Write a small file into a vault, read it back and remove it; return the result.

    `room`: what to do if it is full.
    """
    path = f"{storage.root}/{PROBE}{secrets.token_hex(4)}"
    content = secrets.token_bytes(1024)
    removed = failed(topic, f"{path} cannot be removed", f"remove it, and check {storage.root}")
    try:
        storage.write(path, io.BytesIO(content), time.time())
        with storage.read(path) as stream:
            same = stream.read() == content
    except StepFailed as error:
        if READ_ONLY in str(error):
            return failed(topic, f"cannot be written: {error}", remount(storage.root))
        if space and FULL.search(str(error)):
            return failed(topic, f"cannot be written: {error}", space)
        return failed(topic, f"cannot be written: {error}", f"check the owner of {storage.root}")
    finally:
        with contextlib.suppress(StepFailed):
            storage.remove([path])
            removed = good(topic, "is reachable; a test file was written and read back")
    if not same:
        fix = "check its file system: data read back differ from data written"
        return failed(topic, "a test file was changed", fix)
    return removed
