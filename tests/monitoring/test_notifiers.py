"""Pings, ntfy and apprise, against servers that speak their protocols."""

import gc
from datetime import UTC, datetime, timedelta

import pytest
from aiosmtpd.controller import Controller
from listeners import answering, listening
from ports import free_port

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.monitoring.notifiers import Message, ping_end, ping_start, send
from iotstack_invoke.monitoring.run_event import KILLED, RunEvent
from iotstack_invoke.settings.monitoring import read_monitoring

# apprise leaves its connections to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RUN = "5f0f5a2e-3b1f-4f0e-9d5a-8f6f3a1b2c3d"
BAD = Message("failure", "backup of pi failed", "The disk is full.")


def row(kind, url, **more):
    return read_monitoring(
        {"notify": [{"name": "one", "kind": kind, **({"url": url} if url else {}), **more}]}
    ).notify[0]


def event(code, *messages):
    return RunEvent("backup", "pi", NOON, NOON + timedelta(seconds=65), code, messages)


@pytest.fixture
def listener():
    with listening() as found:
        yield found
    gc.collect()


@pytest.mark.parametrize(
    ("code", "path"),
    [(0, "/ping/u/0"), (1, "/ping/u/1"), (3, "/ping/u/3"), (KILLED, "/ping/u/fail")],
)
def test_a_ping_has_the_exit_code_and_the_last_lines(listener, code, path):
    """As healthchecks.io takes them; start and end have the same run id."""
    ping_start(row("ping", f"{listener.url}/ping/u"), RUN)
    ping_end(row("ping", f"{listener.url}/ping/u/"), event(code, "The NAS is off."), RUN)
    assert listener.paths() == ["/ping/u/start", path]
    assert [each["query"] for each in listener.heard] == [{"rid": RUN}] * 2
    assert "The NAS is off." in listener.heard[1]["body"]
    assert listener.heard[1]["method"] == "POST"


def test_warnings_are_good_for_a_ping_that_wants_failures_alone(listener):
    """`on = ["failure"]`: a run with warnings ends with 0."""
    one = row("ping", f"{listener.url}/ping/u", on=["failure"])
    ping_end(one, event(3))
    ping_end(one, event(1))
    assert listener.paths() == ["/ping/u/0", "/ping/u/1"]


def test_uptime_kuma_has_a_state_and_a_line(listener):
    """Its address of a push monitor takes them as parameters; it has no start."""
    one = row("ping", f"{listener.url}/api/push/tk?status=up&msg=OK&ping=")
    ping_start(one, RUN)
    ping_end(one, event(0))
    ping_end(one, event(1, "The disk\nis full."))
    assert [each["query"]["status"] for each in listener.heard] == ["up", "down"]
    assert "The disk is full." in listener.heard[1]["query"]["msg"]
    assert listener.paths() == ["/api/push/tk"] * 2


def test_ntfy_has_title_text_and_priority(listener):
    """A title that is not ASCII arrives as it is."""
    listener.token = "tk_secret"
    one = row("ntfy", f"{listener.url}/topic", token="tk_secret")
    send(one, BAD)
    send(one, Message("recovered", "Grüße von pi", "x" * 5000 + " end"))
    first, second = listener.heard
    assert (first["title"], first["body"], first["priority"]) == (BAD.title, BAD.text, "high")
    assert second["title"] == "Grüße von pi"
    assert len(second["body"].encode()) < 4096
    assert second["body"].endswith(" end")


def test_apprise_sends_to_its_json_target(listener):
    """Its type tells a failure from a warning and a success."""
    one = row("apprise", f"json://127.0.0.1:{listener.url.rpartition(':')[2]}/secret-path")
    for occasion in ("failure", "warning", "recovered", "always"):
        send(one, Message(occasion, BAD.title, BAD.text))
    assert [each["type"] for each in listener.json()] == [
        "failure",
        "warning",
        "success",
        "success",
    ]
    assert {each["message"] for each in listener.json()} == {BAD.text}


def test_apprise_sends_mail():
    """Through a real SMTP server on the loopback."""

    class Box:
        def __init__(self):
            self.letters = []

        async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - aiosmtpd's name
            self.letters.append((envelope.rcpt_tos, envelope.content.decode()))
            return "250 OK"

    box, port = Box(), free_port()
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        send(row("apprise", f"mailto://127.0.0.1:{port}?from=pi@x.example&to=me@x.example"), BAD)
    finally:
        server.stop()
    (letter,) = box.letters
    assert letter[0] == ["me@x.example"]
    assert BAD.title in letter[1]


@pytest.mark.parametrize("kind", ["ping", "ntfy", "apprise"])
def test_a_server_that_refuses_is_named_and_no_secret_is(listener, kind):
    """The message has the server and its answer, and nothing of the address."""
    listener.answer = 500
    scheme = "json" if kind == "apprise" else "http"
    one = row(kind, f"{scheme}://127.0.0.1:{listener.url.rpartition(':')[2]}/s3cr3t-topic")
    with pytest.raises(StepFailed) as told:
        ping_end(one, event(1)) if kind == "ping" else send(one, BAD)
    assert "500" in str(told.value) or "apprise" in str(told.value)
    assert "s3cr3t" not in str(told.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/s3cr3t", "http://no.such.invalid/s3cr3t"])
def test_a_server_that_is_away_is_told_without_the_address(url):
    """Whether its name or its port is unknown."""
    with pytest.raises(StepFailed, match="cannot be reached") as told:
        send(row("ntfy", url), BAD)
    assert "s3cr3t" not in str(told.value)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_a_server_that_does_not_speak_http_is_told(answer):
    """A wrong port is no bug of ours."""
    with answering(answer) as port, pytest.raises(StepFailed, match="cannot be reached"):
        ping_end(row("ping", f"http://127.0.0.1:{port}/u"), event(0))


@pytest.mark.parametrize("kind", ["ping", "ntfy", "kuma"])
def test_a_redirect_is_a_failure(listener, kind):
    """Python asks the other page, without the text, and takes a login page for success."""
    there = f"HTTP/1.1 302 Found\r\nLocation: {listener.url}/login\r\nContent-Length: 0\r\n\r\n"
    with answering(there.encode()) as port:
        url = f"http://127.0.0.1:{port}/{'api/push/u' if kind == 'kuma' else 'u'}"
        one = row("ntfy", url, token="tk_s3cr3t") if kind == "ntfy" else row("ping", url)
        with pytest.raises(StepFailed, match="a redirect"):
            send(one, BAD) if kind == "ntfy" else ping_end(one, event(0))
    assert listener.heard == []


@pytest.mark.parametrize("kind", ["ping", "ntfy"])
@pytest.mark.parametrize(
    "url",
    [
        "http://[s3cr3t/x",
        "http://u:s3cr3t\u2100@127.0.0.1:1/x",
        "http://127.0.0.1:s3cr3t/x",
        "http://127.0.0.1:1/s3cr3t topic",
        "http://127.0.0.1:1/s3cr3t\u00fc",
    ],
)
def test_an_impossible_address_is_told_and_not_quoted(url, kind):
    """Python's own errors quote it."""
    with pytest.raises(StepFailed, match="the address") as told:
        ping_end(row(kind, url), event(0)) if kind == "ping" else send(row(kind, url), BAD)
    assert "s3cr3t" not in str(told.value)


def test_a_user_and_a_password_in_an_address_are_a_login():
    """As with curl; the name of the server is without them."""
    asked = []
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", asked) as port:
        send(row("ntfy", f"http://me:p%40ss@127.0.0.1:{port}/topic"), BAD)
        ping_end(row("ping", f"http://me:p%40ss@127.0.0.1:{port}/ping?create"), event(0), RUN)
    assert all(b"Authorization: Basic bWU6cEBzcw==" in each for each in asked)
    assert all(f"Host: 127.0.0.1:{port}\r\n".encode() in each for each in asked)
    assert f"POST /ping/0?create=&rid={RUN} ".encode() in asked[1]


def test_a_long_title_is_one_line():
    """A header that goes on in a second line is refused by nginx with 400."""
    asked = []
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", asked) as port:
        send(row("ntfy", f"http://127.0.0.1:{port}/u"), Message("failure", "ü \x1b\x00" * 90, "x"))
    head = asked[0].partition(b"\r\n\r\n")[0]
    assert all(b": " in each for each in head.split(b"\r\n")[1:])
    assert b"\n " not in head


def test_an_address_from_a_file_is_never_another_scheme(tmp_path):
    """`file:///etc/passwd` would be read by urllib."""
    (tmp_path / "url").write_text(f"file://{tmp_path}/url\n")
    one = row("ntfy", None, url_file=f"{tmp_path}/url")
    with pytest.raises(StepFailed, match="must begin with https"):
        send(one, BAD)


def test_an_address_that_apprise_does_not_know_is_told():
    """Without quoting it."""
    with pytest.raises(StepFailed, match="does not know such an address") as told:
        send(row("apprise", "nonsense://s3cr3t"), BAD)
    assert "s3cr3t" not in str(told.value)
