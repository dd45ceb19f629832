"""Tells people and monitors of a run: pings, ntfy, and apprise for all others.

Who calls limits the time: a server's name may take longer to be found than LIMIT_S. Messages name
the server alone. An address may be a secret: it is never shown.
"""

from __future__ import annotations

import base64
import http.client
import logging
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from email.header import Header
from typing import Any

from .. import __version__
from ..core.dataclass import dataclass
from ..core.errors import ExitCode, StepFailed
from ..settings.monitoring import NotifyConfig
from .run_event import KILLED, RunEvent

LIMIT_S = 10.0
"""How long a server may take to answer."""
MOST_BYTES = 3_500
"""Of a text: ntfy makes an attachment of more than 4,096 bytes."""
MOST_LINE = 200
"""Characters of the one line that Uptime Kuma shows."""
KUMA = "/api/push/"
"""In the path of Uptime Kuma's addresses, which take the state as a parameter."""
PRIORITIES = {"failure": "high", "warning": "default", "recovered": "default"}
"""The words of ntfy."""
TAGS = {"failure": "rotating_light", "warning": "warning", "recovered": "white_check_mark"}
"""The names of emoji that ntfy shows before a title."""
INSTALL = (
    "apprise is not installed. Install it beside this program: "
    ".venv/bin/pip install apprise (with pipx: pipx inject iotstack-invoke apprise)."
)


@dataclass(frozen=True, slots=True)
class Message:
    """What people read."""

    occasion: str
    """failure, warning, recovered, or always for a good run like all others."""
    title: str
    text: str


def send(row: NotifyConfig, message: Message) -> None:
    """Send a message by ntfy or apprise; raises StepFailed."""
    (_by_ntfy if row.kind == "ntfy" else _by_apprise)(row, message)


def ping_start(row: NotifyConfig, run: str) -> None:
    """Tell a monitor that a run begins; raises StepFailed.

    `run`: a random UUID, the same at its end, by which healthchecks.io tells runs apart.
    """
    _ping(row, "start", run, "")


def ping_end(row: NotifyConfig, event: RunEvent, run: str = "") -> None:
    """Tell a monitor how a run ended; raises StepFailed.

    A run with warnings counts as good if `on` is without always and warning.
    """
    code = event.exit_code
    if code == ExitCode.WARNINGS and not row.on & {"always", "warning"}:
        code = ExitCode.GOOD
    word = "fail" if code == KILLED else str(int(code))
    _ping(row, word, run, f"{event.title}\n{event.text}")


def _ping(row: NotifyConfig, word: str, run: str, text: str) -> None:
    parts = _address(row)
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    if KUMA in parts.path:
        if word == "start":
            return
        up = word == "0"
        line = " ".join(text.split())[:MOST_LINE]
        told = {**dict(query), "status": "up" if up else "down", "msg": "OK" if up else line}
        _request(parts._replace(query=urllib.parse.urlencode(told)), None, {})
        return
    path = f"{parts.path.rstrip('/')}/{word}"
    if run:
        query.append(("rid", run))
    parts = parts._replace(path=path, query=urllib.parse.urlencode(query))
    _request(parts, _cut(text), {"Content-Type": "text/plain; charset=utf-8"})


def _by_ntfy(row: NotifyConfig, message: Message) -> None:
    token = row.token.read()
    headers = {
        "Title": _header(message.title),
        "Priority": PRIORITIES.get(message.occasion, "default"),
        "Tags": TAGS.get(message.occasion, "white_check_mark"),
        **({"Authorization": f"Bearer {token}"} if token else {}),
    }
    _request(_address(row), _cut(message.text), headers)


def _by_apprise(row: NotifyConfig, message: Message) -> None:
    try:
        import apprise
    except ImportError:
        raise StepFailed(INSTALL) from None
    kinds = {"failure": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING}
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as log:  # type: ignore[no-untyped-call]
        sender = apprise.Apprise()
        if not sender.add(url := row.url.read()):
            raise StepFailed("apprise does not know such an address (its url key).")
        kind = kinds.get(message.occasion, apprise.NotifyType.SUCCESS)
        sent = sender.notify(title=message.title, body=message.text, notify_type=kind)
        told = log.getvalue().strip()
    if not sent:
        last = told.splitlines()[-1] if told else "apprise gave no reason"
        raise StepFailed(last if not _quotes(last, url) else "apprise could not send it")


def _quotes(text: str, url: str) -> bool:
    """Return whether a text has a piece of an address that may be its secret."""
    pieces = re.split("[:@?/&=]", f"{url}/{urllib.parse.unquote(url)}")
    return any(len(each) > 3 and each in text for each in pieces)  # noqa: PLR2004


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would turn a message into a question, and lose its text.

    The page that a redirect leads to, such as a login, answers 200; and it would get the token.
    """

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return no request: the redirect is an error."""


def _address(row: NotifyConfig) -> urllib.parse.SplitResult:
    """Return the address of a row; raises StepFailed, which does not quote it."""
    url = row.url.read()
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # it quotes the address
        raise StepFailed("the address is not valid") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StepFailed("the address must begin with https:// or http:// and a server")
    return parts


def _login(parts: urllib.parse.SplitResult) -> tuple[urllib.parse.SplitResult, dict[str, str]]:
    """Return an address without its user and password, and the header with them, if any."""
    login, is_given, server = parts.netloc.rpartition("@")
    if not is_given:
        return parts, {}
    encoded = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
    return parts._replace(netloc=server), {"Authorization": f"Basic {encoded}"}


def _request(
    parts: urllib.parse.SplitResult, body: bytes | None, headers: Mapping[str, str]
) -> None:
    agent = {"User-Agent": f"iotstack-invoke/{__version__}"}
    parts, login = _login(parts)
    try:
        request = urllib.request.Request(  # noqa: S310 - http or https, see _address
            parts.geturl(), data=body, headers={**agent, **login, **headers}
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=LIMIT_S) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        with error:
            raise StepFailed(_refusal(parts, error)) from None
    except urllib.error.URLError as error:
        why = getattr(error.reason, "strerror", None) or error.reason
        raise StepFailed(f"{parts.hostname} cannot be reached: {why}") from None
    except (UnicodeError, http.client.InvalidURL):
        raise StepFailed(
            f"the address at {parts.hostname} has a character that none may have"
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise StepFailed(f"{parts.hostname} cannot be reached: {type(error).__name__}") from None


def _refusal(parts: urllib.parse.SplitResult, error: urllib.error.HTTPError) -> str:
    """Return what a server answered that is no success."""
    told = f"{parts.hostname} answered {error.code} ({error.reason})"
    if error.code // 100 != 3:  # noqa: PLR2004 - the redirects
        return told
    return f"{told}, a redirect, which is not followed: give the address that it leads to"


def _cut(text: str) -> bytes:
    """Return a text in UTF-8; of a long one the end, which says most."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= MOST_BYTES:
        return encoded
    return "…".encode() + encoded[-MOST_BYTES:].decode("utf-8", "ignore").encode()


def _header(text: str) -> str:
    """Return a text for a header of HTTP, on one line; ntfy decodes RFC 2047.

    nginx refuses a header that goes on in a second line.
    """
    line = "".join(filter(str.isprintable, " ".join(text.split())))
    return line if line.isascii() else Header(line, "utf-8").encode(maxlinelen=0)


def message_of(event: RunEvent, occasion: str) -> Message:
    """Return what people read of a run."""
    if occasion != "recovered":
        return Message(occasion, event.title, event.text)
    return Message(occasion, f"{event.task} of {event.host} is good again", event.text)
