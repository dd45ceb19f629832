"""Sets made as a backup makes them: by GNU tar, from real dumps, each with its manifest."""

import gzip
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from iotstack_invoke.backups.manifest import Manifest, Part, read_manifest, with_sum
from iotstack_invoke.backups.names import KINDS
from iotstack_invoke.databases.influxdb.dump import facts_of
from iotstack_invoke.parts.restore_text import restore_text_of
from iotstack_invoke.parts.restore_text import with_sum as with_text_sum
from iotstack_invoke.parts.verify_archive import read_dump
from iotstack_invoke.reporting.run_log import RunLog
from iotstack_invoke.settings.model import Settings, StackConfig, VaultConfig

DUMPS = Path(__file__).parent / "fixtures" / "influx-backups"


def tar(folder, *members):
    """Return what GNU tar makes of a folder's members."""
    words = ["tar", "-c", "--format=posix", "--sort=name", "-C", folder, *(members or (".",))]
    return subprocess.run(words, check=True, capture_output=True).stdout


def old_form(told):
    """Return the text of a manifest as the first versions wrote it: without a sum of its own."""
    first = {key: value for key, value in told.items() if key != "sha256"}
    return json.dumps({**first, "format": "iotstack-invoke manifest 1"}, indent=1) + "\n"


def new_form(told):
    """Return the text of a manifest with its sum, whatever it says."""
    return with_sum(
        json.dumps({k: v for k, v in told.items() if k != "sha256"}, indent=1)
    ).decode()


@dataclass
class Shelf:
    """A stack's folder with its backups, and folders that are vaults."""

    base: Path
    vaults: tuple = ()

    def __post_init__(self):
        self.stack = self.base / "IOTstack"
        self.backups = self.stack / "backups"
        (self.stack / "volumes/nodered").mkdir(parents=True)
        (self.stack / "volumes/nodered/flows.json").write_text("[]\n" * 200)
        (self.stack / "docker-compose.yml").write_text("services: {}\n")
        self.backups.mkdir()

    def settings(self):
        return Settings(StackConfig(str(self.stack), sudo=False), vaults=self.vaults)

    def vault(self, name, ssh=None):
        """Add a folder that is a vault, also over SSH."""
        (self.base / name).mkdir()
        self.vaults = (*self.vaults, VaultConfig(name, str(self.base / name), ssh))
        return self.base / name

    def put(
        self, runtag, folder=None, *, dump="v1.8.10-happy", when="2026-11-23T10:00:00Z", **changed
    ):
        """Put a finished set into a folder, and return its files by kind."""
        folder = folder or self.backups
        files = {kind: folder / f"{runtag}.{ending}" for kind, ending in KINDS.items()}
        packed = gzip.compress(tar(self.stack, "./docker-compose.yml", "./volumes"))
        files["general"].write_bytes(packed)
        files["influx"].write_bytes(tar(DUMPS / dump))
        log = RunLog(str(files["log"]))
        log.write("backup", f"makes {runtag}")
        log.add_checksum()
        log.finish(os.rename)
        with files["influx"].open("rb") as stream:
            facts = {"version": "1.8.10", **facts_of(read_dump(stream))}
        parts = [
            Part(
                kind,
                files[kind].name,
                files[kind].stat().st_size,
                hashlib.sha256(files[kind].read_bytes()).hexdigest(),
                facts=facts if kind == "influx" else {},
            )
            for kind in ("general", "influx")
        ]
        told = {"host": "pi", "program": "program 1", "zone": "Europe/Berlin", **changed}
        times = {"started_utc": when, "finished_utc": when}
        manifest = Manifest(runtag, parts=tuple(parts), **times, **told)
        self.write(files, manifest)
        return files

    @staticmethod
    def write(files, manifest):
        """Write a manifest, and how its set is restored by hand."""
        files["manifest"].write_text(manifest.to_json())
        content = files["manifest"].read_bytes()
        files["restore"].write_bytes(with_text_sum(restore_text_of(manifest), content))

    def tell_anew(self, files):
        """Write a manifest that says what the files of a set are now."""
        told = read_manifest(files["manifest"].read_bytes())
        parts = tuple(
            replace(
                part,
                size_bytes=files[part.kind].stat().st_size,
                sha256=hashlib.sha256(files[part.kind].read_bytes()).hexdigest(),
            )
            for part in told.parts
        )
        self.write(files, replace(told, parts=parts))
