"""RESTORE.txt: how to restore one set by hand, from its manifest alone. Pure: value in, text out.

Its last line is a checksum over it and the manifest, by which `verify` detects a change of either.

The reader has the files, Docker and GNU tar, but not this tool. Lines indented by four blanks are
for bash. The tests run the commands; restore_steps.py has those of databases.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from ..backups.bundles import DUMP_FOLDER, RECIPES
from ..backups.manifest import Manifest, Part
from ..databases.sql.servers import ENGINES
from .restore_steps import (
    ASIDE,
    COMPOSE,
    GUARD,
    UNPACK,
    ManualStep,
    block,
    clean,
    containers_of,
    guarded,
    influx2_step,
    influx_step,
    maria_step,
    outside_step,
    paragraph,
    postgres_step,
    sql_servers,
    told_of,
    unnamed_step,
    word,
)

HOLDS = {
    "general": "compose files, .env, services/, and volumes/ except what is dumped",
    "outside": "named volumes, and other files of the stack outside of its folder",
    "influx": "a portable dump of all databases of InfluxDB",
    "influxdb2": "a dump of all buckets of InfluxDB 2",
    "mariadb": "a dump of each MariaDB",
    "postgres": "a dump of each PostgreSQL, and its settings",
}


def restore_text_of(manifest: Manifest) -> str:
    """Return the text; its lines end with LF, and those of prose have 76 characters at most."""
    lines = [*_head(manifest), *_contents(manifest)]
    for number, step in enumerate(_steps(manifest), 1):
        lines += ["", f"{number}. {step.title}", "", *step.lines]
    kept = (line for before, line in pairwise(("", *lines)) if line or before)
    return "\n".join(kept).rstrip("\n") + "\n"


SUM_TITLE = "SHA-256 of the lines above, with the manifest behind them:"
"""Of the form of the file: by this line every version finds the sum, also in older backups."""


def with_sum(text: str, manifest: bytes) -> bytes:
    """Return the file: the text, and a checksum that detects a change of it or of the manifest."""
    begun = f"{text}\n{SUM_TITLE}\n".encode()
    return begun + hashlib.sha256(begun + manifest).hexdigest().encode() + b"\n"


def text_fits(content: bytes, manifest: bytes) -> bool | None:
    """Return whether a file matches its manifest; None if it has no checksum."""
    begun, title, _ = content.rpartition(f"{SUM_TITLE}\n".encode())
    begun += title
    digits = hashlib.sha256(begun + manifest).hexdigest().encode()
    return content == begun + digits + b"\n" if title else None


def _title(text: str, under: str = "-") -> tuple[str, ...]:
    return (text, under * len(text), "")


def _listed(title: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield a list under a title, or nothing if the list is empty."""
    told = tuple(texts)
    if told:
        yield from ("", *_title(title))
        for each in told:
            yield from paragraph(clean(each), first="- ", others="  ")


def _head(manifest: Manifest) -> Iterator[str]:
    yield from _title(f"Backup {manifest.runtag}: how to restore it by hand", "=")
    facts = {
        "of": clean(manifest.host),
        "folder": clean(manifest.folder),
        "begun": _when(manifest.started_utc),
        "ended": f"{_when(manifest.finished_utc)}; time there: {clean(manifest.zone)}",
        "by": clean(manifest.program),
        "state": manifest.state,
    }
    yield from (f"{name:<8}{told}" for name, told in facts.items() if told)
    yield ""
    yield from paragraph(
        "The program that made it is not needed. You need GNU tar, sha256sum, sudo and Docker "
        "with Compose (https://docs.docker.com/engine/install/), and the internet for the "
        "images. Lines that are indented by four spaces are commands for bash: paste one block "
        "after the other, into one shell, and read the output of each. Lines behind a # are for "
        "the case that is described above them."
    )
    yield ""
    yield from paragraph(
        "If your user may not use Docker, begin with `sudo -s`. If Docker does not know `docker "
        "compose`, use docker-compose. Delete nothing before everything is restored."
    )
    yield ""
    yield from paragraph(
        "If the files here end in .age (encrypted copies): age --decrypt --identity KEYFILE "
        "--output NAME NAME.age for each, first."
    )


def _when(utc: str) -> str:
    return utc.replace("T", " ").replace("Z", " UTC")


def _contents(manifest: Manifest) -> Iterator[str]:
    yield from ("", *_title("What it contains"))
    if not manifest.made:
        yield "Nothing: no part could be created."
    for part in manifest.made:
        yield f"{part.file}  ({part.size_bytes:,} bytes)"
        recipe = f"{part.kind.capitalize()}: its files, and a dump of its MariaDB"
        for each in (HOLDS.get(part.kind, recipe), *told_of(part), *_images(manifest, part)):
            yield from paragraph(each, first="  ", others="  ")
    yield from _listed("What is missing", (f"{what}: {why}" for what, why in manifest.lacking))
    passed_over = (
        f"of container {container}: {what}"
        for part in manifest.made
        for container, what in part.left_out
    )
    left_out = (f"{each.what}: {each.reason}" for each in manifest.left_out)
    yield from _listed("What was left out", (*left_out, *passed_over))
    yield from _listed("Volumes with options of their own", map(_optioned, manifest.volumes))
    yield from _listed("Other files there, which the stack did not use", manifest.unused)
    yield from _rows(manifest.rows)
    yield from _listed("Warnings of the backup", manifest.warnings)


def _rows(rows: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of hosts.toml, to be copied from here."""
    if rows:
        yield from ("", *_title("Rows of hosts.toml"))
        yield from paragraph(
            "hosts.toml, the settings of the program that made it, is in no part. On a new "
            "machine add these lines to it, or later backups will not contain the same."
        )
        yield from ("", *(each if each.isprintable() else clean(each) for each in rows))


def _optioned(told: Mapping[str, Any]) -> str:
    """Return the options of a volume as `docker volume create` takes them."""
    words = (f"--opt {word(f'{key}={value}')}" for key, value in told["options"].items())
    missing = ", ".join(told["left_out"])
    more = f" (and {missing}, which may be secret and is not shown here)" if missing else ""
    return f"{told['name']}: docker volume create {' '.join(words)} {told['name']}{more}"


def _images(manifest: Manifest, part: Part) -> Iterator[str]:
    """Yield the images of the containers of a part: any of the same version will do."""
    names = {*containers_of(part), *((part.kind,) if part.kind in RECIPES else ())}
    for each in manifest.containers:
        if each.name in names:
            digest = f" {each.digest}" if each.digest else ""
            yield f"container {each.name} had the image {each.image}{digest}"


def _steps(manifest: Manifest) -> Iterator[ManualStep]:
    made = {part.kind: part for part in manifest.made}
    recipes = [part for kind, part in made.items() if kind in RECIPES]
    if made:
        yield _check_step(manifest.made)
    yield _place_step(manifest, general="general" in made)
    packed = [part for part in (made.get("general"), *recipes) if part]
    if packed:
        yield _unpack_step(packed)
    if "outside" in made:
        yield outside_step(made["outside"])
    databases = [part for kind, part in made.items() if kind in ("influx", *ENGINES, *RECIPES)]
    names = [name for part in databases for name in containers_of(part)]
    yield _start_databases(names)
    if "influx" in made:
        yield influx_step(made["influx"])
    for part in databases:
        for server in sql_servers(part):
            member = f"{DUMP_FOLDER}/{ENGINES[server.engine].member}"
            of_recipe = part.kind in RECIPES
            step = maria_step if server.engine == "mariadb" else postgres_step
            yield step(part, server, member if of_recipe else server.member)
    if "influxdb2" in made:
        yield influx2_step(made["influxdb2"], manifest)
    if any(each.get("anonymous") for each in manifest.outside) and "outside" in made:
        yield unnamed_step(made["outside"])
    yield _start_all([part.kind for part in recipes])


def _check_step(parts: tuple[Part, ...]) -> ManualStep:
    lines = (f"{word(f'{part.sha256}  {part.file}')} \\" for part in parts)
    return ManualStep(
        "Check the files",
        (
            *paragraph("Open a shell in the folder that has this file and those above."),
            *block("printf '%s\\n' \\", *(f"  {line}" for line in lines), "  | sha256sum -c"),
            *paragraph(
                "Each line must end with OK. A file that FAILED is damaged: take it from another "
                "copy. The steps of the other files work without it."
            ),
        ),
    )


def _place_step(manifest: Manifest, *, general: bool) -> ManualStep:
    stack = word(manifest.folder) if manifest.folder else "~/IOTstack"
    lines = [
        *paragraph(
            "This is where the stack was; another folder also works. In each new shell go to the "
            "folder of the set, and paste these two lines again."
        ),
        *block('SET="$PWD"', f"STACK={stack}"),
    ]
    if not general:
        lines += paragraph(
            "This set has no compose file: the stack must already be there from another set. All "
            "of it is stopped. The loads below replace nothing: first move away the data folder "
            "of each database (volumes/NAME), so that it starts empty."
        )
        lines += block(f"{COMPOSE.format('stop')} || unset STACK")
        return ManualStep("Where the stack is", tuple(lines))
    lines += paragraph(
        "Once only: an existing stack is stopped and moved aside, not removed. A set inside it "
        "moves along. If that fails, STACK is unset and no block below does anything: fix the "
        "error, and begin this step again."
    )
    lines += block(
        'if [ -e "$STACK" ]; then',
        '  (cd "$STACK" && { ! ls *compose.y*ml || docker compose down; }) &&',
        f'  sudo mv -T "$STACK" "$STACK"{ASIDE} &&',
        '  SET="$(pwd -P)" || unset STACK',
        "fi",
        'mkdir -p "${STACK:?was not moved aside}" || unset STACK',
    )
    return ManualStep("Choose the folder of the stack", tuple(lines))


def _unpack_step(parts: list[Part]) -> ManualStep:
    general = [part for part in parts if part.kind not in RECIPES]
    lines = paragraph("Owners are numbers, because containers know no names. tar prints nothing:")
    commands: list[str] = []
    for part in parts:
        if part.kind not in RECIPES:
            commands += (f"sudo tar -xzf {word(part.file)} \\", f'  -C "$STACK" {UNPACK}')
            continue
        folder = f'"$STACK"/{RECIPES[part.kind].folder}'
        unpack = (
            f"sudo mkdir -p {folder}",
            f"sudo tar -xzf {word(part.file)} \\",
            f"  -C {folder} --exclude=./{DUMP_FOLDER} \\",
            f"  {UNPACK}",
        )
        if general:
            commands += unpack
        else:
            free = f"if ! sudo test -e {folder} || sudo mv -T {folder} {folder}{ASIDE}; then"
            commands += (free, *(f"  {each}" for each in unpack), "fi")
    if not general:
        return ManualStep("Unpack the files", (*lines, *guarded(*commands)))
    empty = '[ -z "$(sudo ls -A "$STACK")" ]; then'
    return ManualStep(
        "Unpack the files",
        (
            *lines,
            *block(
                f"{GUARD.removesuffix('; then')} && {empty}",
                *(f"  {each}" for each in commands),
                'else echo "$STACK is not empty: begin step 2 again"; unset STACK',
                "fi",
            ),
        ),
    )


def _start_databases(names: list[str]) -> ManualStep:
    up = COMPOSE.format("up --no-start")
    lines = paragraph(
        "This fetches or builds the images, and may take long. Nothing runs yet. If it fails, "
        "STACK is unset, as above: fix the error (remove a service whose image no longer exists "
        "from the compose file), paste the two lines that set it again, and continue here."
    )
    if not names:
        lines += guarded(f"{up} || unset STACK")
        return ManualStep("Create the containers", tuple(lines))
    lines += [""]
    lines += paragraph(
        "Then only the databases: other containers would write into them, or create databases "
        "that must not exist yet. A database that is already running is listed: its data would "
        "be replaced. Stop it first."
    )
    running = f"docker ps --format '{{{{.Names}}}}' | grep -xF {shlex.join(_each('-e', names))}"
    lines += guarded(
        f"if {up} &&",
        f"  ! {running}",
        f"then docker start {shlex.join(names)}",
        "else unset STACK; fi",
    )
    return ManualStep("Create the containers, and start only the databases", tuple(lines))


def _each(option: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from (option, name)


def _start_all(recipes: list[str]) -> ManualStep:
    lines = [
        *paragraph("When every step before succeeded:"),
        *guarded(COMPOSE.format("up -d"), "docker ps"),
    ]
    for name in recipes:
        recipe = RECIPES[name]
        if recipe.leave:
            words = shlex.join(("docker", "exec", "--user", recipe.user, name, *recipe.leave))
            lines += paragraph(
                f"{name.capitalize()} was quiet while it was copied, and must be resumed. It may "
                "take some minutes to answer; until then this tries again:"
            )
            lines += guarded(f"until {words}", "do sleep 5; done")
    lines += paragraph(
        "Check your dashboards and flows. If all is well, make a new backup; only then remove "
        "what was moved aside."
    )
    return ManualStep("Start everything", tuple(lines))
