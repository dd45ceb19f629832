"""The key that opens encrypted copies: made, printed as a recovery sheet, and tested.

It belongs on a laptop and on paper, never on the machine that is backed up, which needs only its
public half. The encryption itself is in vaults/.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator

from ...core.errors import ExitCode, NotFound, Refused, StepFailed, UsageError
from ...core.runtag import LATEST
from ...environment.environment import Environment
from ...hosts.local import LocalHost, read_chunk
from ...reporting.report import Report
from ...settings.model import Settings, VaultConfig
from ...vaults.age import INSTALL, read_identity
from ..shared.latest import passed_told
from .copies import VAULT, choose_copy, copies_at, places_meant

KEYGEN = "age-keygen"
SHEET = ".sheet.txt"
PUBLIC = re.compile(r"age1[a-z0-9]+")
SECRET = re.compile(r"AGE-SECRET-KEY-[A-Z0-9-]+")


def make_key(settings: Settings, identity: str, report: Report) -> int:
    """Make a key in a new file of mode 0600, and its sheet; print the lines for hosts.toml.

    Raises Refused if the file exists, StepFailed if age is missing.
    """
    path = _path_of(identity)
    if os.path.lexists(path):
        raise Refused(f"{path} exists already; keys are never overwritten. Use another file.")
    public = _keygen("-o", path)
    report.write(f"The secret key is in {path}. Keep it off the machines that are backed up.")
    write_sheet(settings, identity, report)
    report.write("Add to hosts.toml, below each [[vaults]] whose copies you want encrypted:")
    report.write(f'recipients = ["{public}"]')
    return ExitCode.GOOD


def write_sheet(settings: Settings, identity: str, report: Report) -> int:
    """Write beside a key how to open and restore copies with plain commands; mode 0600.

    The sheet holds the key itself if it can be given to age from paper.
    """
    path = _path_of(identity)
    text = "\n".join(sheet_lines(settings.vaults, path, read_identity(path).decode("utf-8")))
    host, sheet = LocalHost(os.path.dirname(path)), f"{path}{SHEET}"
    with host.create(f"{sheet}.partial") as stream:
        stream.write(f"{text}\n".encode())
    host.rename(f"{sheet}.partial", sheet)
    report.write(
        f"The recovery sheet, for a restore without this program, is {sheet}. It "
        "contains the secret key:"
    )
    report.write("print it, keep the paper in a safe place, and remove the file.")
    if not settings.vaults:
        report.warn(
            "It lists no vaults, because hosts.toml has none: add them, then run inv key sheet "
            "again."
        )
    return ExitCode.GOOD


def sheet_lines(vaults: tuple[VaultConfig, ...], path: str, key: str) -> Iterator[str]:
    """Yield the sheet: what is where, the key, and the commands."""
    secret = SECRET.search(key)
    yield "HOW TO OPEN AND RESTORE THE BACKUPS OF AN IOTSTACK WITHOUT ITS BACKUP PROGRAM"
    yield ""
    yield "Anyone with this sheet can read the backups. Keep it in a safe place."
    yield ""
    yield "1. Install the program age, on any machine:"
    yield f"     {INSTALL}"
    yield "   Elsewhere: https://age-encryption.org"
    yield ""
    yield "2. The key. Type this line into a file named key.txt:"
    yield f"     {secret[0] if secret else f'(the key is the file {path}: print or copy it)'}"
    yield ""
    yield "3. Fetch all files of one backup. Their names begin with the name of the backup,"
    yield "   such as 2026-11-23_1100. They are in:"
    for each in vaults:
        yield f"     {each.name}: {_fetch(each)}"
    if not vaults:
        yield "     (hosts.toml had no vaults when this was written)"
    yield ""
    yield "4. Decrypt each file that ends in .age, for example:"
    yield "     for encrypted in 2026-11-23_1100.*.age; do"
    yield '       age --decrypt --identity key.txt --output "${encrypted%.age}" "$encrypted"'
    yield "     done"
    yield ""
    yield "5. Compare with the manifest, a text file with the SHA-256 of each file:"
    yield "     sha256sum 2026-11-23_1100.*"
    yield "     less 2026-11-23_1100.manifest.json"
    yield ""
    yield "6. 2026-11-23_1100.RESTORE.txt explains the next steps with tar, docker and influxd."


def _fetch(vault: VaultConfig) -> str:
    """Return how to copy files from a vault by hand."""
    folder = f"{vault.folder}/HOSTNAME" if vault.by_host else vault.folder
    if vault.remote:
        return f"rclone copy {shlex.quote(folder)} . --include '2026-11-23_1100.*'"
    if vault.ssh is None:
        return f"cp {shlex.quote(folder)}/2026-11-23_1100.* ."
    port = f"-P {vault.ssh.port} " if vault.ssh.port else ""
    user = f"{vault.ssh.user}@" if vault.ssh.user else ""
    return f"scp {port}{shlex.quote(f'{user}{vault.ssh.host}:{folder}')}/2026-11-23_1100.* ."


def check_key(settings: Settings, identity: str, at: str, report: Report) -> int:
    """Open each encrypted file of the newest backup in each vault, up to its first bytes.

    Returns 1 if one is not opened or a vault does not answer. Raises NotFound if none is
    encrypted.
    """
    path = _path_of(identity)
    read_identity(identity)
    if os.stat(path).st_mode & 0o077:
        report.warn(f"Others can read or write {path}: chmod 600 {shlex.quote(path)}")
    environment = Environment.of(settings)
    opened, failed = 0, False
    try:
        for name in places_meant(environment, at or VAULT):
            try:
                opened += _check_in(environment, name, report)
            except NotFound as error:
                report.warn(str(error))
            except StepFailed as error:
                report.fail(f"{name}: {error}")
                failed = True
    finally:
        environment.close()
    if failed:
        return ExitCode.FAILED
    if not opened:
        raise NotFound("No encrypted copies found, so the key was not tested.")
    return ExitCode.GOOD


def _check_in(environment: Environment, name: str, report: Report) -> int:
    """Return how many encrypted files of the newest set of a vault the key opens."""
    checks = environment.checks.newest()
    copies = tuple(each for each in copies_at(environment, name, checks) if each.encrypted)
    if not copies:
        report.warn(f"{name}: no encrypted copies.")
        return 0
    copy = choose_copy(copies, LATEST, name, checks)
    for told in passed_told(copy.passed):
        report.warn(f"{name}: {told}")
    for kind in copy.backup.files:
        with copy.storage.read(copy.path(kind)) as stream:
            read_chunk(stream)
    report.write(
        f"{name}: the key can decrypt each file of {copy.runtag} "
        f"({', '.join(copy.backup.parts)}); only the beginning was read. To read everything: inv "
        f"verify --runtag '{copy.runtag}' --at {name} --identity FILE"
    )
    return len(copy.backup.parts)


def _path_of(identity: str) -> str:
    if not identity:
        raise UsageError("Give the key file: --identity FILE")
    return os.path.abspath(os.path.expanduser(identity))


def _keygen(*words: str) -> str:
    """Run age-keygen and return the public key that it prints."""
    try:
        done = subprocess.run(
            [KEYGEN, *words], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError as error:
        raise StepFailed(f"{KEYGEN} is not installed: {INSTALL}") from error
    found = PUBLIC.search(f"{done.stdout}{done.stderr}")
    if done.returncode or not found:
        raise StepFailed(f"{KEYGEN} failed: {done.stderr.strip()}")
    return found[0]
