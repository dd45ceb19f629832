"""A server on the loopback that speaks as those who are told of runs."""

import contextlib
import ctypes
import json
import re
import threading
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit


class Listener:
    """An HTTP server that keeps what it is told.

    `/ping/UUID[/start|/fail|/log|/CODE]` as healthchecks.io, `/TOPIC` with POST as ntfy, `/api/push/TOKEN` as Uptime Kuma.
    """

    def __init__(self, host="127.0.0.1", network=""):
        self.heard = []
        self.answer = 200
        self.token = ""
        self.release = threading.Event()
        self.hangs = False
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def hear(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                if listener.hangs:
                    listener.release.wait(60)
                parts = urlsplit(self.path)
                title = str(make_header(decode_header(self.headers.get("Title", ""))))
                if (
                    listener.token
                    and self.headers.get("Authorization") != f"Bearer {listener.token}"
                ):
                    self.send_response(403)
                    self.end_headers()
                    return
                listener.heard.append(
                    {
                        "method": self.command,
                        "path": parts.path,
                        "query": {k: v[0] for k, v in parse_qs(parts.query).items()},
                        "title": title,
                        "priority": self.headers.get("Priority", ""),
                        "body": body,
                    }
                )
                self.send_response(listener.answer)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(b"OK")

            do_GET = do_POST = hear  # noqa: N815 - the names of http.server

        self._server = in_network(network, lambda: ThreadingHTTPServer((host, 0), Handler))
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def json(self):
        """Return what apprise's JSON target was sent."""
        return [json.loads(each["body"]) for each in self.heard]

    def paths(self, begins="/"):
        return [each["path"] for each in self.heard if each["path"].startswith(begins)]


def in_network(path, make):
    """Return what `make` makes in a network namespace (its file); "" is that of this process."""
    made = []

    def enter():
        with open(path) as namespace:
            assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) == 0
        made.append(make())

    if not path:
        return make()
    thread = threading.Thread(target=enter)  # a namespace is of one thread alone
    thread.start()
    thread.join()
    return made[0]


@contextlib.contextmanager
def listening():
    listener = Listener()
    try:
        yield listener
    finally:
        listener.close()


@contextlib.contextmanager
def answering(content, asked=None):
    """Run a server that reads each request and answers these bytes, whatever it asks; yield its port.

    `asked` gets each request.
    """

    class Handler(BaseRequestHandler):
        def handle(self):
            read = b""
            while b"\r\n\r\n" not in read and (more := self.request.recv(1 << 16)):
                read += more
            head, _, body = read.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)^content-length: (\d+)", head, re.MULTILINE)
            while length and len(body) < int(length[1]) and (more := self.request.recv(1 << 16)):
                body += more
            if asked is not None:
                asked.append(read)
            self.request.sendall(content)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
