"""S3 as moto plays it: a real server on the loopback, whose buckets rclone and boto3 reach."""

import base64
import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET

import pytest
from cloud import require_rclone
from contexts import until
from ports import free_port

KEYS = ("pi-key", "pi-secret-of-s3")
SIGNED = f"AWS4-HMAC-SHA256 Credential={KEYS[0]}/20261130/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


class S3:
    """A server of buckets, which are gone with it; a file with rclone's settings calls it `s3:`.

    `line` is what lies between it and rclone, and can be cut.
    """

    def __init__(self, folder):
        require_rclone()
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.line = Line(self.port)
        self.settings = folder / "s3.conf"
        self.settings.touch(mode=0o600)
        self.settings.write_text(settings(self.line.port))
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log,
                stderr=log,
            )
        until(self._answers)

    def _answers(self):
        if self.process.poll() is not None:
            pytest.fail("moto's server ended")
        with socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True

    def stop(self):
        self.line.close()
        self.process.kill()
        self.process.wait(10)

    def ask(self, method, path, content=None, **query):
        """Return what the server answers; moto compares no signature."""
        url = f"http://127.0.0.1:{self.port}/{urllib.parse.quote(path)}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, content, method=method)  # noqa: S310
        request.add_header("Content-Type", "application/octet-stream")
        request.add_header("Authorization", SIGNED)
        if content is not None:  # as a bucket under a lock wants it
            digest = hashlib.md5(content).digest()  # noqa: S324
            request.add_header("Content-MD5", base64.b64encode(digest).decode())
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.read()

    def client(self):
        """Return a client of boto3's, for what takes more than a request."""
        import boto3

        where = f"http://127.0.0.1:{self.port}"
        key, secret = KEYS
        return boto3.client(
            "s3",
            endpoint_url=where,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    def make_locked_bucket(self, name):
        """Make a bucket from which nothing is removed for a day, by nobody, and return it."""
        client = self.client()
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=lock)
        client.close()
        return Bucket(self, name)

    def make_bucket(self, name):
        """Make a bucket, and return it."""
        self.ask("PUT", name)
        return Bucket(self, name)


def settings(port, **more):
    """Return rclone's settings of an S3 server on a port of the loopback."""
    key, secret = KEYS
    rest = "".join(f"{name} = {value}\n" for name, value in more.items())
    return (
        f"[s3]\ntype = s3\nprovider = Other\naccess_key_id = {key}\nsecret_access_key = {secret}\n"
        f"region = us-east-1\nendpoint = http://127.0.0.1:{port}\n{rest}"
    )


def know(monkeypatch, file):
    """Let rclone read these settings, and no certificates of its own (1.60 dies of them)."""
    monkeypatch.setenv("RCLONE_CONFIG", str(file))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)


class Bucket:
    """A folder of a bucket as the server has it, with the few ways of a path that tests use."""

    def __init__(self, s3, name, key=""):
        self.s3, self.bucket, self.key = s3, name, key

    @property
    def name(self):
        return self.key.rpartition("/")[2]

    @property
    def _path(self):
        return f"{self.bucket}/{self.key}"

    def __truediv__(self, name):
        return Bucket(self.s3, self.bucket, f"{self.key}/{name}".lstrip("/"))

    def iterdir(self):
        """Yield the files of a folder."""
        told = {"IsTruncated": "true"}
        prefix, token = f"{self.key}/".lstrip("/"), {}
        while told["IsTruncated"] == "true":
            query = {"list-type": 2, "prefix": prefix, "delimiter": "/", **token}
            tree = ET.fromstring(self.s3.ask("GET", self.bucket, **query))  # noqa: S314
            space = tree.tag.removesuffix("ListBucketResult")
            for each in tree.iter(f"{space}Key"):
                if not each.text.endswith("/"):
                    yield Bucket(self.s3, self.bucket, each.text)
            told = {each.tag.removeprefix(space): each.text for each in tree}
            token = {"continuation-token": told.get("NextContinuationToken", "")}

    def exists(self):
        try:
            self.s3.ask("HEAD", self._path)
        except urllib.error.HTTPError:
            return False
        return True

    def read_bytes(self):
        return self.s3.ask("GET", self._path)

    def read_text(self):
        return self.read_bytes().decode()

    def write_bytes(self, content):
        self.s3.ask("PUT", self._path, content)

    def write_text(self, text):
        self.write_bytes(text.encode())

    def touch(self):
        self.write_bytes(b"")

    def mkdir(self):
        """Make what consoles call a folder: an empty object whose name ends with a slash."""
        self.s3.ask("PUT", f"{self._path}/", b"")

    def unlink(self):
        self.s3.ask("DELETE", self._path)


class Line:
    """A port that leads to another, until it is cut; what waits in it is lost then."""

    def __init__(self, port):
        self.to = port
        self.open = True
        self.passed_bytes = 0
        self._pairs = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with self._server:
            while True:
                try:
                    near, _ = self._server.accept()
                except OSError:
                    return
                threading.Thread(target=self._pair, args=(near,), daemon=True).start()

    def _pair(self, near):
        with near:
            if not self.open:
                return
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.to)) as far,
            ):
                self._pairs.append((near, far))
                back = threading.Thread(target=self._pass, args=(far, near), daemon=True)
                back.start()
                self._pass(near, far)
                back.join()

    def _pass(self, one, other):
        with contextlib.suppress(OSError):
            while content := one.recv(1 << 16):
                self.passed_bytes += len(content)
                other.sendall(content)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Break what is connected."""
        for pair in self._pairs:
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self):
        self.cut()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)


class KeepingLine(Line):
    """A line over which no DELETE gets through: it is answered so."""

    def __init__(self, port, answer):
        super().__init__(port)
        self._answer = answer

    def _pass(self, one, other):
        with contextlib.suppress(OSError):
            while content := one.recv(1 << 16):
                if content.startswith(b"DELETE "):
                    one.sendall(self._answer)
                else:
                    other.sendall(content)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def listed(folder):
    """Return the names of what lies in a folder, of a disk or of a bucket, sorted."""
    return sorted(each.name for each in folder.iterdir())
