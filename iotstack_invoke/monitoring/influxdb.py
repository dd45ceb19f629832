"""Writes points into InfluxDB 1 over HTTP, into a database of its own with a retention."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from datetime import timedelta

from ..core.dataclass import dataclass
from ..core.errors import StepFailed, TimedOut, ended
from ..hosts.local import within

DATABASE = "iotstack_backup"
POLICY = "iotstack_backup"
LIMIT_S = 10.0
"""How long all of it may take."""
MOST_BYTES = 1 << 16
UNAUTHORIZED, FORBIDDEN = 401, 403
CONFLICTS = "conflicts with an existing policy"


@dataclass(frozen=True, slots=True)
class InfluxServer:
    """A server, and who writes there."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    container: str = ""

    def __str__(self) -> str:
        inside = f" (container {self.container})" if self.container else ""
        return f"InfluxDB at {self.host}:{self.port}{inside}"


class _Refused(Exception):
    """InfluxDB answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def write_points(server: InfluxServer, lines: str, retention: timedelta) -> None:
    """Write points in line protocol, with times in seconds; raises StepFailed, within 10 s.

    Makes the database, and changes its retention if that is another one; neither if the user may
    only write.
    """
    try:
        within(LIMIT_S, "It", lambda: _write(server, lines, retention))
    except TimedOut:
        raise StepFailed(_told(server, f"did not answer within {LIMIT_S:g} s")) from None


def _write(server: InfluxServer, lines: str, retention: timedelta) -> None:
    try:
        _prepare(server, retention)
        _post(server, "write", lines.encode(), db=DATABASE, precision="s")
    except _Refused as error:
        if error.status in (UNAUTHORIZED, FORBIDDEN):
            who = f"the user {server.user}" if server.user else "a request without a login"
            fix = "Set user and password_file of [metrics] in hosts.toml"
            raise StepFailed(_told(server, f"refused {who}: {error}", fix)) from None
        raise StepFailed(_told(server, f"refused the metrics: {error}")) from None
    except urllib.error.URLError as error:
        why = getattr(error.reason, "strerror", None) or error.reason
        raise StepFailed(_told(server, f"cannot be reached: {why}")) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise StepFailed(_told(server, f"gave no answer: {type(error).__name__}")) from None


def _prepare(server: InfluxServer, retention: timedelta) -> None:
    """Make the database with its retention; a user who may not do that may write nevertheless."""
    keeping = f"DURATION {int(retention.total_seconds())}s REPLICATION 1"
    try:
        _query(server, f'CREATE DATABASE "{DATABASE}" WITH {keeping} NAME "{POLICY}"')
    except _Refused as error:
        if CONFLICTS in str(error):
            _query(server, f'ALTER RETENTION POLICY "{POLICY}" ON "{DATABASE}" {keeping} DEFAULT')
        elif error.status != FORBIDDEN:
            raise


def _query(server: InfluxServer, text: str) -> None:
    """Execute a statement; raises _Refused, also if InfluxDB puts the error into a good answer."""
    body = urllib.parse.urlencode({"q": text}).encode()
    answer = _post(server, "query", body)
    try:
        results = json.loads(answer).get("results", ())
        errors = [each["error"] for each in results if "error" in each]
    except (AttributeError, TypeError) as error:  # another server's answer
        raise ValueError from error
    if errors:
        raise _Refused(0, errors[0])


def _post(server: InfluxServer, path: str, body: bytes, **query: str) -> bytes:
    address = f"http://{server.host}:{server.port}/{path}?{urllib.parse.urlencode(query)}"
    headers = {}
    if server.user:
        pair = f"{server.user}:{server.password}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    request = urllib.request.Request(address, data=body, headers=headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=LIMIT_S) as answer:
            content: bytes = answer.read(MOST_BYTES)
            return content
    except urllib.error.HTTPError as error:
        with error:
            raise _Refused(error.code, _error_in(error.read(MOST_BYTES), error.reason)) from None


def _error_in(content: bytes, otherwise: str) -> str:
    """Return InfluxDB's message in an answer."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return otherwise


def _told(server: InfluxServer, why: str, fix: str = "") -> str:
    """Return what failed, why, and what to do."""
    look = f"Look at: docker logs {server.container}" if server.container else "Look at its log"
    return f"{ended(f'{server} {why}')} {fix or look}."
