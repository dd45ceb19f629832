"""An SFTP server that misbehaves in one way, and passes on all else: python3 odd_sftp.py WAY SERVER."""

import itertools
import os
import struct
import subprocess
import sys
import time

ATTRS, NAME, HANDLE, DATA, STATUS = 105, 104, 102, 103, 101
OPEN, READ, WRITE, LSTAT, OPENDIR, READDIR = 3, 5, 6, 7, 11, 12
KINDS = {
    "open": OPEN,
    "read": READ,
    "write": WRITE,
    "lstat": LSTAT,
    "opendir": OPENDIR,
    "readdir": READDIR,
}
MOST = 0xFFFFFFFF


def get(stream, size):
    data = stream.read(size)
    if len(data) < size:
        sys.exit(0)
    return data


def packet(stream):
    head = get(stream, 4)
    return head + get(stream, struct.unpack(">I", head)[0])


def put(data):
    while data:
        data = data[os.write(1, data) :]


def answer(kind, body):
    put(struct.pack(">IB", len(body) + 1, kind) + body)


def text(data):
    return struct.pack(">I", len(data)) + data


def silent(_number):
    time.sleep(600)


def endless(_number):
    while True:
        put(b"\xc3\x28" * 30_000)


def printing(_number):
    for _ in itertools.count():
        put(b"Welcome to this machine\n")


def too_long(number):
    put(struct.pack(">IBI", 0x00F00000, ATTRS, number))
    endless(number)


def cut(number):
    put(struct.pack(">IBI", 100, ATTRS, number))
    sys.exit(0)


def close(_number):
    sys.exit(0)


def stray(number):
    while True:
        answer(STATUS, struct.pack(">II", number + 7, 0) + text(b"") + text(b""))


def attributes(number):
    answer(ATTRS, struct.pack(">III", number, 0x80000000, MOST))


def count(number):
    answer(NAME, struct.pack(">II", number, MOST))


def listing(number):
    name = text(b"x" * 200) + text(b"") + struct.pack(">I", 0)
    answer(NAME, struct.pack(">II", number, 100) + name * 100)


def listed(number, size, told_once=[]):  # noqa: B006 - of one listing
    """One file of a size, 8 bytes, or of none; then the end."""
    if told_once:
        answer(STATUS, struct.pack(">II", number, 1) + text(b"") + text(b""))
        return
    told_once.append(number)
    flags, told = (1, size) if size else (0, b"")
    name = text(b"x.manifest.json") + text(b"") + struct.pack(">I", flags | 4) + told
    answer(NAME, struct.pack(">II", number, 1) + name + struct.pack(">I", 0o100600))


def unsized(number):
    listed(number, b"")


def negative(number):
    listed(number, struct.pack(">q", -5))


def handle(number):
    answer(HANDLE, struct.pack(">II", number, 1 << 30) + b"x")


def garbage(number):
    answer(DATA, struct.pack(">I", number) + os.urandom(64))


def failure(number):
    answer(STATUS, struct.pack(">II", number, 4) + text(b"Fehler") + text(b"de"))


def denied(number):
    answer(STATUS, struct.pack(">II", number, 3) + text(b"Keine Berechtigung") + text(b"de"))


def other(number):
    answer(DATA, struct.pack(">I", number) + text(b"?" * 1000))


def main(way, server):
    doing, _, when = way.partition("@")
    act = globals()[doing]
    if not when:
        act(0)
        get(sys.stdin.buffer, MOST)
    with subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as behind:
        while True:
            asked = packet(sys.stdin.buffer)
            if asked[4] == KINDS[when]:
                act(struct.unpack(">I", asked[5:9])[0])
                continue
            behind.stdin.write(asked)
            behind.stdin.flush()
            put(packet(behind.stdout))


if __name__ == "__main__":
    main(*sys.argv[1:])
