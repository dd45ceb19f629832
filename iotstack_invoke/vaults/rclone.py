"""A vault in any cloud that the `rclone` program supports, one process per request.

Its remotes are made by `rclone config`: this package neither reads nor writes rclone's settings,
and no argument is a password. It reads with lsjson, cat, copy, about and `backend features`; and
changes with rcat, moveto, deletefile and mkdir. Never `sync`: that removes there what is missing
here. Exit codes: https://rclone.org/docs/#exit-code. Tested with rclone 1.60.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import posixpath
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cached_property
from typing import IO, Any, cast

from ..core import processes
from ..core.dataclass import dataclass
from ..core.errors import Interrupted, StepFailed, TimedOut, Unreachable
from ..hosts.base import FileFact, Received
from ..hosts.hashing import HashedStream
from ..hosts.json_answers import JsonAnswer
from ..hosts.local import READ_ONLY, LocalHost, piped, read_chunk
from .claims import claim_by_marks

RCLONE = (
    "rclone",
    "--quiet",
    "--ask-password=false",  # no one can answer under cron
    "--retries=1",  # rules retry; rclone cannot retry a stream
    "--low-level-retries=3",
    "--contimeout=20s",
    "--s3-no-check-bucket",  # checked before; a key without the right to make one is fine
    "--gcs-no-check-bucket",
)
SENT = ("rcat", "--s3-no-head")
"""The file is read back, so S3 is not asked for its MD5 first."""
ASK_LIMIT_S = 300.0
ASKED = ("--timeout=20s", "--low-level-retries=2")
"""How long a server may be silent after a request, and how often rclone retries: it gives up after
40 s, and after 120 s with S3, whose library retries three times each."""
MOST_ANSWER_BYTES = 16 << 20
"""The size of a listing of 80,000 files; anything longer is invalid."""
MOST_SAID = 100
MOST_QUOTED = 120
MOST_LETTERS = 500
"""How much is kept of an rclone message: it may contain a server's answer of any length."""
SETTINGS_AWAY_S = (0.1, 0.4, 2.0)
"""How long rclone's settings may be missing: another rclone that saves a new token (or the hashes
of a server) renames the old file first, so for a moment there is none."""
TRANSFER_LIMIT_S = 24 * 3600.0
STALE_UPLOAD = "24h"
MAY_REMOVE = (
    "Is its key allowed to remove files? For a bucket that must keep everything set write_once = "
    "true in hosts.toml."
)
SETTLED_S = (1.0, 5.0)
"""When a listing must show a rename or removal: some clouds delay it."""
AT_ONCE = 4
"""How many files are removed at the same time; as many as rclone itself transfers."""
NO_FOLDER, NO_FILE = 3, 4
NO_MATTER = (0, NO_FOLDER)
NO_SIZE = -1
"""rclone's size for a Google document, which is unknown before it is downloaded."""
LISTED = ("--no-mimetype", "--use-server-modtime")
"""Fewer facts per file; for its original time S3-like clouds would get one more request."""
PREFIX = re.compile(
    r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?((ERROR|NOTICE|CRITICAL) *: |Fatal error: )?"
    r"(Failed to [\w-]+( with \d+ errors: last error was)?: )?"
)
UNDER_LOCK = ("--s3-upload-cutoff=0",)
"""A bucket with a default retention requires the MD5 of uploads; for a stream rclone has it only
of pieces (https://rclone.org/s3/#object-lock)."""
SPECIAL = re.compile(r"[\\*?\[\]{}]")
"""Special characters in the patterns of rclone's filters."""
FULL = re.compile(
    r"no space left|quota|insufficient ?(storage|space)|\b507 [A-Z]|storage .*full", re.IGNORECASE
)
NO_ROOM = re.compile(
    r"no space left|remaining disk space|quota exceeded|read-only file ?system", re.IGNORECASE
)
"""rclone's messages if a folder of this machine cannot be written."""
READ_ONLY_THERE = re.compile(r"read-only file ?system", re.IGNORECASE)
NO_REMOTE = re.compile(r"didn't find section in config file", re.IGNORECASE)
TOO_OLD = re.compile(r"unknown (shorthand )?(flag|command)")
SETTINGS = re.compile(r"load config file|decrypt|ask for password|config.*password", re.IGNORECASE)
REFUSED = re.compile(r"\b4(?!08|23|25|29)\d\d [A-Z][a-z]|SSH_FX_FAILURE")
"""Permanent errors of servers; some report a full disk as "405 Method Not Allowed"."""
CLOCK = re.compile(r"RequestTimeTooSkewed|RequestExpired|clock skew", re.IGNORECASE)
REGION = re.compile(
    r"AuthorizationHeaderMalformed|PermanentRedirect|IllegalLocationConstraint|BucketRegion",
    re.IGNORECASE,
)
"""S3's answers for a bucket in another region than the request's."""
SENT_ON = "PermanentRedirect: the server redirects to another one"
SENT_ON_AFTER_S = 45.0
"""By then a silent server has timed out; S3's library waits longer for one."""
SENT_ON_LIMIT_S = 5.0
WHERE_TO = re.compile(r"\bGET \S+\?location= ")
MOVED = re.compile(r"\bHTTP/\S+ 301 ")
NOT_ALLOWED = re.compile(r"access.?denied|\bforbidden\b", re.IGNORECASE)
TAKES_AWAY = ("renaming ", "removing ")
"""What fails with a key that may only add to a bucket."""
SHUT_OUT = re.compile(
    r"\b40[13] [A-Z]|unauthori[sz]ed|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|"
    r"unable to authenticate|permission denied|access.?denied|\bforbidden\b|"
    r"invalid_grant|token.*expired|knownhosts|read-only",
    re.IGNORECASE,
)


INSTALL = "sudo apt-get install rclone"


def open_rclone(root: str, name: str, *, write_once: bool = False) -> RcloneStorage:
    """Return the storage; raises Unreachable if rclone is not installed.

    `write_once`: files there are locked from their first byte on.
    """
    if shutil.which("rclone") is None:
        why, fix = f"Vault '{name}' needs the program rclone, which is not installed.", INSTALL
        raise Unreachable(f"{why} Install it: {fix}", why=why, fix=fix)
    return RcloneStorage(root, name, UNDER_LOCK if write_once else ())


class RcloneStorage:
    """A folder of one of rclone's remotes; its paths are `remote:folder/name`.

    The first copy makes the folder: many clouds have no empty ones. The date of a file is that of
    its upload.
    """

    resumes = False
    overwrites = True
    """A partial file is always overwritten, whatever it is: clouds have no pipes."""

    def __init__(self, root: str, name: str, sending: tuple[str, ...] = ()) -> None:
        self.root = root
        self.name = name
        self._sending = sending
        self._claiming = threading.Lock()
        self._bucket_seen = False
        self._arrived: dict[str, int] = {}
        """The sizes of files that were received and not yet renamed."""

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of existing paths, a process per folder; in a bucket, of files only."""
        asked = list(paths)
        if asked and self._is_bucket:
            return self._look_in_bucket(asked)
        if len(asked) == 1:
            told = self._stat(asked[0])
            return {} if told is None else {asked[0]: self._fact(told, asked[0])}
        found = {}
        for folder in sorted({_folder_of(path) for path in asked}):
            names = self.listdir(folder)
            for path in asked:
                name = path.removeprefix(folder).removeprefix("/")
                if _folder_of(path) == folder and name in names:
                    found[path] = names[name]
        return found

    def _look_in_bucket(self, paths: list[str]) -> dict[str, FileFact]:
        """Return the facts of those files that exist, asking for each by name.

        For any missing name lsjson --stat reports a folder: in a bucket folders are only prefixes
        of names.
        """
        found: dict[str, FileFact] = {}
        for folder in sorted({_folder_of(path) for path in paths}):
            inside = {
                path.removeprefix(folder).removeprefix("/"): path
                for path in paths
                if _folder_of(path) == folder and "\n" not in path
            }
            words = ("lsjson", *LISTED, "--no-traverse", "--files-from-raw=-", folder)
            source = io.BytesIO("".join(f"{name}\n" for name in inside).encode())
            _, out = self._ask(f"looking at {folder}", *words, source=source)
            told = self._entries(out, "Path", folder)
            found |= {inside[name]: fact for name, fact in told.items() if name in inside}
        return found

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name; {} if the folder does not exist.

        Raises Unreachable if the bucket does not exist, or any name seems to.
        """
        code, out = self._ask(f"listing {folder}", "lsjson", *LISTED, folder, accept=NO_MATTER)
        if code and self._is_bucket:
            raise self._no_bucket()
        found = {} if code else self._entries(out, "Name", folder)
        if not (found or code):
            self._refuse_any_answer(folder)
        self._bucket_seen = True
        return found

    def _refuse_any_answer(self, folder: str) -> None:
        """Raise Unreachable if any name seems to exist: then the server is not a file server.

        From a page of HTML, such as a WiFi login page, rclone reads an empty bucket or folder.
        """
        if self.stat([f"{folder}/{secrets.token_hex(8)}"]):
            raise Unreachable(
                f"Vault '{self.name}': the answer for {self.root} reports any file name as "
                "existing, so it does not come from the cloud. Does this network need a login in "
                "a browser first?",
                again=True,
            )

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes; raises StepFailed at the end if it was truncated."""
        said = _Said()
        offset = ("--offset", str(start)) if start else ()
        words = (*RCLONE, "cat", *offset, path)
        with piped(words, said.hear, TRANSFER_LIMIT_S) as (process, end):
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            # For an unreadable object in a bucket rclone returns no bytes, and no error.
            is_empty = not cast("io.BufferedReader", process.stdout).peek(1)
            yield process.stdout
            if process.stdout.closed or process.stdout.read(1):
                return  # the reader has stopped early
            code = end()
        if code:
            raise self._failure(f"reading {path}", code, said)
        if is_empty and self._is_bucket:
            self._refuse_no_bytes(path, start)

    def _refuse_no_bytes(self, path: str, start: int) -> None:
        """Raise StepFailed if a file that returned no bytes is missing, or not empty."""
        fact = self.stat([path]).get(path)
        if fact is None:
            raise StepFailed(f"Vault '{self.name}': {path} is missing.")
        if fact.size_bytes > start:
            raise Unreachable(
                f"Vault '{self.name}': {path} has {fact.size_bytes:,} bytes, but none were "
                "received.",
                again=True,
            )

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder, by one process, through a temporary folder here.

        If that cannot be made, because /tmp is full, by one process each.
        """
        asked = [name for name in names if "\n" not in name]
        if not asked:
            return {}
        try:
            with tempfile.TemporaryDirectory(prefix="iotstack-") as scratch:
                return self._copied(folder, asked, scratch)
        except OSError:
            pass
        except StepFailed as error:
            if not NO_ROOM.search(str(error)):
                raise
        told = self.listdir(folder)
        there = (e for e in asked if e in told and not (told[e].is_folder or told[e].other))
        found: dict[str, bytes] = {}
        left_bytes = MOST_ANSWER_BYTES
        for name in there:
            with self.read(f"{folder}/{name}") as stream:
                found[name] = stream.read(left_bytes + 1)
            left_bytes -= len(found[name])
            if left_bytes < 0:
                raise StepFailed(
                    f"Vault '{self.name}': files of {folder} are not read: together they have "
                    f"more than {MOST_ANSWER_BYTES:,} bytes, unlike in the listing.",
                    again=True,
                )
        return found

    def _copied(self, folder: str, names: list[str], scratch: str) -> dict[str, bytes]:
        """Return small files of a folder, copied into a folder of this machine."""
        patterns = "".join(f"/{_pattern(name)}\n" for name in names).encode()
        most = f"--max-transfer={MOST_ANSWER_BYTES}B"
        words = ("copy", "--max-depth=1", "--ignore-checksum", "--include-from=-", most)
        self._ask(
            f"reading files of {folder}",
            *(*words, folder, scratch),
            source=io.BytesIO(patterns),
            accept=NO_MATTER,
        )
        return LocalHost(scratch).read_many(scratch, names)

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds.

        No cloud can create a file exclusively: see claims.py.
        """
        with self._claiming:  # jobs of one run would remove each other's marks
            return claim_by_marks(self, path, line)

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,  # noqa: ARG002 - not every cloud keeps it
        start: int = 0,
        size_bytes: int | None = None,
    ) -> Received:
        """Write a stream to `path`, and hash the stored file.

        After a failure the received part may be left there. A stream of unknown size is read whole
        first: without the size rclone would buffer it on this disk for many clouds.
        """
        assert start == 0  # noqa: S101 - no cloud resumes a file
        self._refuse_halves()
        if size_bytes is None:
            content = b"".join(iter(lambda: read_chunk(source), b""))
            source, size_bytes = io.BytesIO(content), len(content)
        words = (*SENT, *self._sending, "--size", str(size_bytes), path)
        self._ask(f"sending {path}", *words, source=source, limit_s=TRANSFER_LIMIT_S)
        received = self._proven(path, size_bytes)
        self._arrived[path] = received.size_bytes
        return received

    def put(self, path: str, content: bytes) -> None:
        """Write a small file in one request, unverified."""
        self._refuse_no_bucket()
        words = ("rcat", *self._sending, "--size", str(len(content)), path)
        self._ask(f"writing {path}", *words, source=io.BytesIO(content))

    def mkdir(self, path: str) -> None:
        """Make a folder, if the cloud has empty ones; a bucket is made by its owner."""
        if not self._is_bucket:
            self._ask(f"making {path}", "mkdir", path)

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes, or None if the cloud does not report them."""
        with contextlib.suppress(StepFailed):
            if not self._features.tells_room:
                return None
            _, out = self._ask("asking for space", "about", "--json", folder)
            free = self._read_json(out, dict).get("free")
            return free if isinstance(free, int) else None
        return None

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`, on the server.

        If both exist, rclone removes `new` first: if it stops here, `old` is left. Without
        --ignore-times it would only remove `old` if both have the same size. Raises StepFailed
        also if it was not done: some servers wrongly report success.
        """
        self._refuse_halves()
        size_bytes = self._arrived.pop(old, None)
        if size_bytes is None and (fact := self.stat([old]).get(old)):
            size_bytes = fact.size_bytes
        words = ("moveto", "--ignore-times", old, new)
        self._ask(f"renaming {old}", *words, limit_s=TRANSFER_LIMIT_S)

        def is_renamed(there: dict[str, FileFact]) -> bool:
            return {path: fact.size_bytes for path, fact in there.items()} == {new: size_bytes}

        there = self._settled([old, new], is_renamed)
        if not is_renamed(there):
            names = posixpath.basename(old), posixpath.basename(new)
            found = ", ".join(
                f"{posixpath.basename(path)} with {fact.size_bytes:,} bytes"
                for path, fact in sorted(there.items())
            )
            raise StepFailed(
                f"Vault '{self.name}' reports that {names[0]} was renamed to {names[1]}, but it "
                f"finds {found or 'neither'}. Does `rclone moveto` work "
                f"there?{f' {MAY_REMOVE}' if old in there else ''}"
            )

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored.

        Raises StepFailed also if one still exists: some servers wrongly report success.
        """
        names = list(paths)
        with ThreadPoolExecutor(AT_ONCE) as several:
            list(several.map(self._remove, names))
        left = self._settled(names, lambda there: not there)
        if left:
            told = ", ".join(sorted(map(posixpath.basename, left)))
            raise StepFailed(
                f"Vault '{self.name}' reports that {told} was removed, but it still exists. "
                f"{MAY_REMOVE}"
            )

    def _settled(
        self, paths: list[str], is_so: Callable[[dict[str, FileFact]], bool]
    ) -> dict[str, FileFact]:
        """Return the facts of some paths: at once if they are as expected, or after a delay."""
        there = self.stat(paths)
        for pause_s in SETTLED_S:
            if is_so(there):
                break
            processes.pause(pause_s)
            there = self.stat(paths)
        return there

    def end_uploads(self) -> None:
        """Remove unfinished multipart uploads to S3 that are older than a day.

        With S3's own command: `rclone cleanup` would remove old versions from a B2 bucket.
        """
        if self._features.kind == "s3":
            words = ("backend", "cleanup", f"--option=max-age={STALE_UPLOAD}", self.root)
            self._ask("removing pieces of uploads", *words)

    def close(self) -> None:
        """Do nothing: each program ends by itself."""

    def _remove(self, path: str) -> None:
        try:
            self._ask(f"removing {path}", "deletefile", path, accept=(0, NO_FOLDER, NO_FILE))
        except StepFailed:  # 1.60 exits with 1 if there are none, too
            if self.stat([path]):
                raise

    def _stat(self, path: str, *more: str) -> dict[str, Any] | None:
        """Return lsjson's entry for one path, None if it does not exist."""
        words = ("lsjson", "--stat", *LISTED, *more, path)
        code, out = self._ask(f"looking at {path}", *words, accept=(0, NO_FOLDER, NO_FILE))
        return None if code else self._read_json(out, dict)

    def _proven(self, path: str, size_bytes: int) -> Received:
        """Return size and hash of the stored file: from the cloud if it can, or by reading it."""
        if "sha256" in self._features.hashes:
            told = self._stat(path, "--hash-type=sha256") or {}
            sha256 = JsonAnswer(told, "`rclone lsjson`")["Hashes"]["sha256"].text("")
            if sha256:
                return Received(self._fact(told, path).size_bytes, sha256)
        with self.read(path) as stream:
            return HashedStream(stream).drain(size_bytes)

    @cached_property
    def _features(self) -> _Features:
        """The capabilities of this kind of cloud."""
        _, out = self._ask(f"opening {self.root}", "backend", "features", self.root)
        told = JsonAnswer(self._read_json(out, dict), "`rclone backend features`")
        return _Features(
            told["Name"].text(""),
            told["Hashes"].texts(),
            empty_folders=told["Features"]["CanHaveEmptyDirectories"].flag(default=True),
            renames=any(told["Features"][e].flag(default=False) for e in ("Move", "Copy")),
            tells_room=told["Features"]["About"].flag(default=True),
        )

    @property
    def _is_bucket(self) -> bool:
        """Whether folders exist only through their files: S3, B2, Google's and Azure's storage."""
        return not self._features.empty_folders

    def _refuse_no_bucket(self) -> None:
        """Raise Unreachable if the bucket does not exist: rclone would create one of that name."""
        if self._is_bucket and not self._bucket_seen:
            self.listdir(self.root)

    def _no_bucket(self) -> Unreachable:
        remote, _, inside = self.root.partition(":")
        bucket = f"{remote}:{inside.partition('/')[0]}"
        return Unreachable(
            f"Vault '{self.name}': there is no bucket {bucket}. If the name is correct, create "
            f"it: `rclone mkdir {shlex.quote(bucket)}`, or on the provider's website."
        )

    def _refuse_halves(self) -> None:
        """Raise StepFailed if a rename would send the bytes once more, under the final name."""
        self._refuse_no_bucket()
        if not self._features.renames:
            raise StepFailed(
                f"Vault '{self.name}': {self.root} can neither rename nor copy files on the "
                "server, so an incomplete copy could have the name of a complete one. Use "
                "another cloud."
            )

    def _read_json(self, out: bytes, kind: type[Any]) -> Any:
        """Return rclone's answer, which is a list or a dict; raises Unreachable for any other."""
        try:
            told = json.loads(out)
            if not isinstance(told, kind):
                raise ValueError(f"it is not a {kind.__name__}")  # noqa: TRY301, TRY004
        except (ValueError, RecursionError) as error:
            raise Unreachable(
                f"Vault '{self.name}': cannot read rclone's answer: {error}. rclone 1.60 or "
                "later is needed: rclone version",
                again=True,
            ) from error
        return told

    def _entries(self, out: bytes, key: str, folder: str) -> dict[str, FileFact]:
        """Return lsjson's entries by `key`; raises for an invalid one, rather than omit it."""
        found = {}
        for each in self._read_json(out, list):
            name = each.get(key) if isinstance(each, dict) else None
            if not isinstance(name, str):
                raise self._odd(folder, each)
            found[name] = self._fact(each, folder)
        return found

    def _fact(self, told: dict[str, Any], where: str) -> FileFact:
        """Return the facts in an lsjson entry; a document without a size is not a file.

        Raises Unreachable if it is invalid: `where` is what was asked for.
        """
        size, is_folder, when = told.get("Size"), told.get("IsDir"), told.get("ModTime", "")
        least = NO_SIZE if is_folder is False else -math.inf
        if type(size) is not int or type(is_folder) is not bool or size < least:
            raise self._odd(where, told)
        modified_s = 0.0
        # "" if the cloud has no times
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            modified_s = datetime.fromisoformat(when).timestamp()
        other = "document" if size == NO_SIZE and not is_folder else ""
        return FileFact(max(size, 0), modified_s, is_folder, other)

    def _odd(self, where: str, told: object) -> Unreachable:
        """Return the failure of a listing with an invalid entry."""
        return Unreachable(
            f"Vault '{self.name}': cannot read the listing of {where}: it contains "
            f"{json.dumps(told)[:MOST_QUOTED]}. Its content is unknown.",
            again=True,
        )

    def _ask(
        self,
        doing: str,
        *words: str,
        source: IO[bytes] | None = None,
        accept: tuple[int, ...] = (0,),
        limit_s: float | None = None,
    ) -> tuple[int, bytes]:
        """Run rclone, feed it `source`, and return its exit code and output.

        It is run once more if its settings were missing for a moment; but not for a stream, of
        which a part may be consumed: there the rule retries.
        """
        limit_s = ASK_LIMIT_S if limit_s is None else limit_s
        code, out, said = self._run(words, source, limit_s)
        if code in accept:
            return code, out
        failure = self._failure(doing, code, said, limit_s)
        can_repeat = source is None or isinstance(source, io.BytesIO)
        if failure.again and can_repeat and NO_REMOTE.search(" ".join(said.lines)):
            if source is not None:
                source.seek(0)
            code, out, said = self._run(words, source, limit_s)
            if code in accept:
                return code, out
            failure = self._failure(doing, code, said, limit_s)
        raise failure

    def _is_listed(self) -> bool:
        """Return whether rclone knows the remote, now or after a moment."""
        remote = f"{self.root.partition(':')[0]}:".encode()
        for pause_s in SETTINGS_AWAY_S:
            time.sleep(pause_s)
            if remote in self._run(("listremotes",), None, ASK_LIMIT_S)[1].splitlines():
                return True
        return False

    def _run(
        self, words: tuple[str, ...], source: IO[bytes] | None, limit_s: float
    ) -> tuple[int, bytes, _Said]:
        """Run rclone once; return its exit code, its output, and its messages."""
        said = _Said()
        asked = ASKED if limit_s <= ASK_LIMIT_S else ()
        with (
            piped((*RCLONE, *asked, *words), said.hear, limit_s, feed=source is not None) as (
                process,
                end,
            ),
            self._not_sent_on(process, said) if asked else contextlib.nullcontext(),
        ):
            if source is not None:
                assert process.stdin is not None  # noqa: S101 - we asked for pipes
                with contextlib.suppress(BrokenPipeError):  # its exit code and output say more
                    while chunk := read_chunk(source):
                        process.stdin.write(chunk)
                    process.stdin.close()
            assert process.stdout is not None  # noqa: S101
            out = process.stdout.read(MOST_ANSWER_BYTES + 1)
            if len(out) > MOST_ANSWER_BYTES:
                raise StepFailed(
                    f"Vault '{self.name}': rclone's answer to `{words[0]}` has more than "
                    f"{MOST_ANSWER_BYTES:,} bytes. Are there so many files in {self.root}?"
                )
            code = end()
        return code, out, said

    @contextlib.contextmanager
    def _not_sent_on(self, process: subprocess.Popen[bytes], said: _Said) -> Iterator[None]:
        """End a request that S3 redirects to another region: rclone 1.60 then deadlocks."""

        def judge() -> None:
            if process.poll() is None and self._is_sent_on():
                said.hear("err", SENT_ON)
                processes.end(process)

        timer = threading.Timer(SENT_ON_AFTER_S, judge)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _is_sent_on(self) -> bool:
        """Return whether the server's answer says that the bucket is in another region."""
        heard = _Said()
        words = ("rclone", "--ask-password=false", *ASKED, "-vv", "--dump=headers")
        with (
            contextlib.suppress(StepFailed),
            piped((*words, "lsjson", self.root), heard.hear, SENT_ON_LIMIT_S) as (process, end),
        ):
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            process.stdout.read(MOST_ANSWER_BYTES)
            end()
        return all(any(map(each.search, heard.lines)) for each in (WHERE_TO, MOVED))

    def _failure(
        self, doing: str, code: int, said: _Said, limit_s: float = TRANSFER_LIMIT_S
    ) -> StepFailed:
        """Return the failure as a message for users; raises Interrupted if the run is to end."""
        if processes.ending():
            raise Interrupted(-code if code < 0 else 15)
        code = 1 if SENT_ON in said.lines else code
        why = f"it did not end within {limit_s:g} s" if code < 0 else _last_words(said.lines, code)
        if code < 0 and said.lasted_s < limit_s:
            return Unreachable(
                f"Vault '{self.name}': {doing} failed: rclone was ended by "
                f"{signal.Signals(-code).name}, not by this program. Is there enough memory? See "
                "`dmesg`.",
                again=True,
            )
        what = f"Vault '{self.name}': {doing} failed: {why}."
        if code < 0:
            return TimedOut(f"{what} Is the connection or the server too slow?")
        remote = f"{self.root.partition(':')[0]}:"
        quoted = shlex.quote(remote)
        if TOO_OLD.search(why):
            return Unreachable(
                f"{what} The installed rclone is too old: 1.60 or later is needed. Check `rclone "
                "version`; newer ones: https://rclone.org/install/"
            )
        if FULL.search(why):
            return StepFailed(f"{what} Free some space there, then run the same command again.")
        if READ_ONLY_THERE.search(why):
            return StepFailed(f"{what} Its file system {READ_ONLY}.")
        if NO_REMOTE.search(why) and self._is_listed():
            return Unreachable(
                f"{what} {remote} is configured in rclone, but the remote below it is not; or "
                "its settings were just being written: run the same command again.",
                again=True,
            )
        if NO_REMOTE.search(why):
            return Unreachable(
                f"Vault '{self.name}': rclone has no remote {remote} here. List them with "
                "`rclone listremotes`, add one with `rclone config`. If it belongs to another "
                "user, set RCLONE_CONFIG to the file with its settings."
            )
        if SETTINGS.search(why):
            return Unreachable(
                f"{what} Try `rclone listremotes`. Encrypted settings need RCLONE_CONFIG_PASS in "
                "the environment, also under cron."
            )
        if CLOCK.search(why):
            return Unreachable(
                f"{what} The clock of this machine is wrong, or the server's: `timedatectl`."
            )
        if REGION.search(why):
            return Unreachable(
                f"{what} The bucket is in another region: correct `region` and `endpoint` of "
                f"{remote} with `rclone config`."
            )
        if NOT_ALLOWED.search(why) and doing.startswith(TAKES_AWAY):
            return StepFailed(
                f"{what} Each copy is renamed after the upload, which needs a key that is "
                "allowed to remove files. For a key that is not: write_once = true in hosts.toml."
            )
        if SHUT_OUT.search(why):
            return Unreachable(
                f"{what} Does `rclone lsd {quoted}` work? If not, log in again: `rclone config "
                f"reconnect {quoted}`, or correct it with `rclone config`."
            )
        if code in (NO_FOLDER, NO_FILE):
            return StepFailed(what)
        if REFUSED.search(why):
            return StepFailed(
                f"{what} It may be full or read-only: check it, free some space, then run the "
                "same command again."
            )
        return Unreachable(f"{what} For details: `rclone lsd {quoted}`", again=True)


@dataclass(frozen=True, slots=True)
class _Features:
    """The capabilities of a kind of cloud, as rclone reports them."""

    kind: str
    hashes: tuple[str, ...]
    empty_folders: bool
    renames: bool
    """It can move, or copy, a file on the server."""
    tells_room: bool


class _Said:
    """The messages of rclone; if there are many, the last ones."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MOST_SAID)
        self._began_s = time.monotonic()

    def hear(self, _stream: str, line: str) -> None:
        """Keep a line, or its beginning."""
        self._lines.append(line[:MOST_LETTERS])

    @property
    def lasted_s(self) -> float:
        """How long ago rclone was started."""
        return time.monotonic() - self._began_s

    @property
    def lines(self) -> list[str]:
        """The lines that are kept."""
        return list(self._lines)


def _last_words(said: list[str], code: int) -> str:
    """Return why rclone failed: its own last sentence, since a server's answer may be a page."""
    lines = [line.strip() for line in said if line.strip()]
    own = [line for line in lines if "Failed to " in line] or lines
    return PREFIX.sub("", own[-1]).rstrip(".") if own else f"exit {code}"


def _folder_of(path: str) -> str:
    """Return the parent folder of a path of a remote."""
    remote, _, inside = path.partition(":")
    folder, slash, _ = inside.rpartition("/")
    return f"{remote}:{folder or slash}"


def _pattern(name: str) -> str:
    """Return the rclone filter pattern that matches one name, including spaces at its ends."""
    text = SPECIAL.sub(r"\\\g<0>", name)
    return f"{text[:-1]}[ ]" if text.endswith(" ") else text
