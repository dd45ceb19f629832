"""A server that answers as no server should: whatever is asked, in one way that is told it."""

import contextlib
import socket
import threading
import time

GARBAGE = bytes(range(256)) * 40
PAGE = b"<html><body><h1>Sign in to the hotel's WiFi</h1></body></html>"


def answer(status, content, more=""):
    """Return a way: each request is read and answered so."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{more}\r\n"
    )

    def way(near):
        near.sendall(head.encode() + content)

    return way


def s3_error(status, code, message):
    """Return a way: S3's own words for what is wrong."""
    told = (
        f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>"
    )
    kind = "Content-Type: application/xml\r\n"
    return answer(status, f'<?xml version="1.0" encoding="UTF-8"?>\n{told}'.encode(), kind)


def silent(near):
    """Say nothing until the other side goes."""
    while near.recv(1 << 16):
        pass


def closing(near):
    """Begin an answer, and go."""
    near.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n<?xml")


def garbage(near):
    near.sendall(GARBAGE)


def another_protocol(near):
    near.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    silent(near)


def endless(near):
    """Never end, at a pace that harms nobody."""
    near.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n<a>")
    while True:
        near.sendall(b"<b>" + b"x" * 1000 + b"</b>")
        time.sleep(0.02)


def slow(near):
    """A thousand bytes a second."""
    near.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        near.sendall(b"x" * 100)
        time.sleep(0.1)


WAYS = {
    "silent": silent,
    "closing": closing,
    "garbage": garbage,
    "another protocol": another_protocol,
    "endless": endless,
    "slow": slow,
    "500": answer("500 Internal Server Error", b"oops"),
    "403": answer("403 Forbidden", b"no"),
    "404": answer("404 Not Found", b"no"),
    "405": answer("405 Method Not Allowed", b"read-only"),
    "507": answer("507 Insufficient Storage", b"full"),
    "a page": answer("200 OK", PAGE, "Content-Type: text/html\r\n"),
    "a page of an error": answer("502 Bad Gateway", PAGE * 2000, "Content-Type: text/html\r\n"),
    "nothing": answer("204 No Content", b""),
}


class OddServer:
    """One server, on a free port of the loopback; `ways`: of some methods, where it is another."""

    def __init__(self, way, **ways):
        self.way = way
        self.ways = ways
        self.came = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with self._server:
            while True:
                try:
                    near, _ = self._server.accept()
                except OSError:
                    return
                self.came += 1
                threading.Thread(target=self._one, args=(near,), daemon=True).start()

    def _one(self, near):
        with near, contextlib.suppress(OSError):
            near.settimeout(30)
            method = near.recv(1 << 16).partition(b" ")[0].decode("latin-1")
            self.ways.get(method, self.way)(near)
            near.shutdown(socket.SHUT_WR)
            while near.recv(1 << 16):
                pass

    def stop(self):
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
