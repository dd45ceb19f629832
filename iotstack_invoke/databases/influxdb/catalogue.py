"""The catalogue of an InfluxDB 1.x that is inside its container: replace it, and roll back.

If data and write-ahead log have mounts of their own, the catalogue is in the container's layer, or
in a volume that no compose file names. Docker copies it there: no path of the host leads to it.
"""

from __future__ import annotations

import io
import posixpath
import re
import shlex
import tarfile

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostStep, StepContext
from ...hosts.base import PARTIAL, Command, Host, sh
from ...hosts.inspect import temporary_file
from ...hosts.local import read_chunk
from .dump import DATA_INSIDE

META = f"{DATA_INSIDE}/meta"
KEPT = "influxdb-catalogue.tar"
"""The previous catalogue, in the folder of replaced data."""
COPY_LIMIT_S = 600.0
# If its own socket is missing, Docker prints `dial unix …: no such file or directory`.
_MISSING = re.compile("Could not find the file|No such container:path|lstat .*: no such file")
_FROM = 'f=$1; shift; exec "$@" < "$f"'
# A partial file under this name would be put back over a complete catalogue.
_KEEP = (
    f'umask 077; f=$1; shift; "$@" > "$f{PARTIAL}" && sync "$f{PARTIAL}" && '
    f'mv -T -- "$f{PARTIAL}" "$f" && sync "$(dirname "$f")"'
)


@dataclass(frozen=True, slots=True)
class PutCatalogue(HostStep):
    """Copy a new catalogue into a stopped container. Undo copies the previous one back."""

    journaled_as = "PutCatalogue"

    container: str
    meta: str
    """The folder of the new catalogue, called `meta`."""
    previous: str
    notes: str
    """A file beside it, mode 0600: Docker reads as the user, and the hashes are root's."""

    def commands(self) -> tuple[str, ...]:
        """Return the command as a user would type it."""
        return (
            f"docker cp -a {shlex.quote(f'{self.meta}/meta.db')} {self.container}:{META}/meta.db",
        )

    @property
    def _kept(self) -> str:
        return posixpath.join(self.previous, KEPT)

    def do(self, context: StepContext) -> None:
        """Keep the current catalogue, if any, and put the new one in its place."""
        host = self.access.host(context)
        words = (*self.access.docker, "cp", f"{self.container}:{META}/meta.db", "-")
        told = host.run(self._command(_KEEP, self._kept, *words).accepting(0, 1))
        host.remove([self._kept + PARTIAL])
        if told.exit_code and not _is_missing(told.err):
            raise StepFailed(
                f"Could not save the catalogue of container {self.container}: {told.last_line}"
            )
        above = posixpath.dirname(self.meta)
        pack = (*self.access.as_root, "tar", "--create", "--directory", above, "meta/meta.db")
        self._put(host, pack, DATA_INSIDE)

    def undo(self, host: Host) -> None:
        """Put the previous catalogue back; do nothing if there was no previous one."""
        host.remove([self._kept + PARTIAL])
        kept = host.stat([self._kept]).get(self._kept)
        if kept and kept.size_bytes:
            self._put(host, ("cat", self._kept), META)

    def _put(self, host: Host, words: tuple[str, ...], into: str) -> None:
        with host.pipe(Command(words, timeout_s=COPY_LIMIT_S)) as pipe:
            content = b""
            while chunk := read_chunk(pipe.stdout):
                content += chunk
            if pipe.finish():
                raise StepFailed(f"Could not read the catalogue of InfluxDB on {host.name}.")
        copy = (*self.access.docker, "cp", "--archive", "-", f"{self.container}:{into}")
        with temporary_file(host, self.notes, content):
            host.run(self._command(_FROM, self.notes, *copy))

    def _command(self, script: str, *words: str) -> Command:
        return self.access.guarded(*sh(script, *words), timeout_s=COPY_LIMIT_S)


def catalogue_within(host: Host, container: str, docker: tuple[str, ...]) -> bytes:
    """Return the meta.db inside a container; b"" if it has none.

    Raises StepFailed if it cannot be read.
    """
    said: list[str] = []
    command = Command((*docker, "cp", f"{container}:{META}/meta.db", "-"), timeout_s=COPY_LIMIT_S)
    with host.pipe(command, lambda _stream, line: said.append(line)) as pipe:
        packed = pipe.stdout.read()
        if pipe.finish():
            if _is_missing(" ".join(said)):
                return b""
            last = said[-1] if said else ""
            raise StepFailed(f"Could not read the catalogue of container {container}: {last}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        content = archive.extractfile("meta.db")
        return content.read() if content else b""


def _is_missing(said: str) -> bool:
    """Return whether Docker reports that the container has no such file."""
    return bool(_MISSING.search(said))
