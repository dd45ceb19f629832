"""Root folders of images, made of Debian's own binaries and of the libraries that they need.

There is no registry where the tests run: `docker import` makes an image of such a folder's tar.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from stand_machine import PATH, StandError

CACHE = Path(
    os.environ.get("IOTSTACK_STAND_CACHE") or Path(tempfile.gettempdir(), "iotstack-stand-cache")
)
# fmt: off
IN_EACH = [
    "sh", "cat", "chmod", "chown", "cp", "cut", "date", "df", "du", "find", "grep", "gzip", "head",
    "id", "ls", "mkdir", "mktemp", "mv", "rm", "rmdir", "sed", "sleep", "sort", "stat", "sync",
    "tail", "tar", "test", "timeout", "touch", "true", "wc",
]
# fmt: on


def cached(name, make):
    """Return CACHE/name; when absent, `make` writes it under another name that is then renamed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o755)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = CACHE / name
        if not path.exists():
            part = CACHE / f"{name}.part"
            make(part)
            part.rename(path)
        return path


def rootfs_tar(name, programs, *, folders, files, links=None, copies=()):
    """The tar of a root folder with programs in /usr/bin.

    `folders` are path -> mode, `files` path -> (bytes, mode), `links` path -> target; `copies` are
    files of this system that lie at the same place in the image.
    """
    found = {f"usr/bin/{program}": _program(program) for program in [*IN_EACH, *programs]}
    found |= {str(path).lstrip("/"): path for path in copies}
    links = {"bin": "usr/bin", **(links or {})}
    stats = [(at, path.stat().st_size, path.stat().st_mtime) for at, path in found.items()]
    key = hashlib.sha256(repr((stats, folders, files, links)).encode()).hexdigest()[:12]

    def make(part):
        with tarfile.open(part, "w", dereference=True) as tar:
            for folder, mode in {"tmp": 0o1777, "root": 0o700, **folders}.items():
                _add(tar, folder, tarfile.DIRTYPE, mode)
            for file, (content, mode) in files.items():
                _add(tar, file, tarfile.REGTYPE, mode, content=content)
            for link, target in links.items():
                _add(tar, link, tarfile.SYMTYPE, 0o777, target=target)
            for at, path in found.items():
                tar.add(path, at)
            for library in sorted(_libraries(found.values()) - set(copies)):
                tar.add(library, str(library).lstrip("/"))

    return cached(f"{name}-{key}.tar", make)


def accounts(**uids):
    """The files passwd and group with root and others, and an order of look-ups that needs no DNS."""
    people = {"root": 0, **uids}
    passwd = [f"{name}:x:{uid}:{uid}::/root:/bin/sh\n" for name, uid in people.items()]
    groups = [f"{name}:x:{uid}:\n" for name, uid in people.items()]
    return {
        "etc/passwd": ("".join(passwd).encode(), 0o644),
        "etc/group": ("".join(groups).encode(), 0o644),
        "etc/nsswitch.conf": (b"hosts: files dns\n", 0o644),
    }


def import_image(machine, tar, image, **changes):
    """Make an image of a tar in a machine's engine; `changes` are a Dockerfile's, without case."""
    words = []
    for keyword, value in {"env": "PATH=/usr/bin:/bin", **changes}.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["-c", f"{keyword.upper()} {text}"]
    machine.run(["docker", "import", *words, tar, image])


def _program(name):
    path = shutil.which(name, path=PATH)
    if not path:
        raise StandError(f"missing {name}, which belongs into an image")
    return Path(path)


def _libraries(paths):
    """The shared libraries that programs and libraries are linked to."""
    linked = subprocess.run(["ldd", *paths], check=False, capture_output=True, text=True).stdout
    words = {word for line in linked.splitlines() for word in line.split()}
    return {Path(word) for word in words if word[0] == "/" and not word.endswith(":")}


def _add(tar, name, kind, mode, *, content=b"", target=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, target, len(content)
    tar.addfile(info, io.BytesIO(content))
