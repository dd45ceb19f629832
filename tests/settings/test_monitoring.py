"""The tables notify, mqtt and metrics, and the secrets in them."""

import os
from datetime import timedelta

import pytest

from iotstack_invoke.core.errors import SettingsError, StepFailed
from iotstack_invoke.settings.effective import effective_values
from iotstack_invoke.settings.model import read_settings
from iotstack_invoke.settings.secret import Secret

PING = {"name": "hc", "kind": "ping", "url": "https://hc.example/uuid"}


def refused(**content):
    with pytest.raises(SettingsError) as told:
        read_settings(content, "hosts.toml")
    return str(told.value).splitlines()[1:]


def test_without_these_tables_nobody_is_told():
    """What is not configured is False, so that a run need not load it."""
    assert not read_settings({}, "").monitoring


def test_a_ping_hears_of_each_run_and_a_person_of_what_matters():
    """Each kind has a useful default of `on`."""
    ntfy = {"name": "phone", "kind": "ntfy", "url_file": "~/url", "on": ["failure"]}
    mail = {"name": "mail", "kind": "apprise", "url_command": ["pass", "mail"]}
    found = read_settings({"notify": [PING, ntfy, mail]}, "").monitoring.notify
    assert [each.on for each in found] == [
        {"always"},
        {"failure"},
        {"failure", "warning", "recovered"},
    ]


def test_the_tables_alone_have_defaults():
    """`[mqtt]` without keys is the stack's own broker."""
    found = read_settings({"mqtt": {}, "metrics": {}}, "").monitoring
    assert (found.mqtt.host, found.mqtt.port, found.mqtt.prefix) == ("", 1883, "homeassistant")
    assert found.mqtt.silent_after == timedelta(hours=26)
    assert not found.mqtt.allow_start
    assert (found.metrics.textfile, found.metrics.influxdb) == ("", False)
    assert (found.metrics.user, found.metrics.password.read()) == ("", "")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"url": None}, "[[notify]] 'hc': one of url, url_file, url_command is missing"),
        ({"url_file": "x"}, "[[notify]] 'hc': give one of url, url_file"),
        ({"url": "hc.example"}, "[[notify]] 'hc': its url must begin with https:// or http://"),
        ({"url": 5}, "[[notify]] number 1: url must be a text in quotes"),
        ({"token": "tk"}, "[[notify]] 'hc': a token is for kind = 'ntfy'"),
        ({"on": ["failed"]}, "[[notify]] 'hc': on = 'failed' must be"),
        ({"on": [5]}, "[[notify]] 'hc': on = 5 must be"),
        ({"kind": "mail"}, "[[notify]] 'hc': kind = 'mail' must be 'ping', 'ntfy' or 'apprise'"),
        ({"url": None, "url_command": []}, "[[notify]] 'hc': url_command must be a list of words"),
        ({"url": None, "url_command": "echo tk"}, "url_command must be a list"),
        ({"url": None, "url_file": PING["url"]}, "[[notify]] 'hc': url_file is an address"),
    ],
)
def test_a_wrong_row_is_told_without_its_secret(row, told):
    """The message names the row and the key, and never quotes a secret."""
    row = {key: value for key, value in {**PING, **row}.items() if value is not None}
    lines = refused(notify=[row])
    assert any(told in line for line in lines), lines
    assert not any(PING["url"] in line or "tk" in line.split() for line in lines)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"mqtt": {"password": "x"}}, "[mqtt]: 'user' is missing: a password needs one"),
        ({"mqtt": {"port": 0}}, "[mqtt]: port = 0 must be between 1 and 65,535"),
        ({"mqtt": {"prefix": "a/#"}}, "[mqtt]: prefix = 'a/#' must be the name of a topic"),
        ({"mqtt": {"silent_after": "1 day"}}, "[mqtt]: silent_after: '1 day' is not a duration"),
        (
            {"metrics": {"textfile": "x.prom"}},
            "[metrics]: textfile = 'x.prom' must be an absolute",
        ),
        ({"metrics": {"retention": "2y"}}, "[metrics]: retention: '2y' is not a duration"),
        ({"metrics": {"retention": "90min"}}, "[metrics]: retention: InfluxDB keeps values for"),
        (
            {"metrics": {"password": "s3cr3t"}},
            "[metrics]: 'user' is missing: a password needs one",
        ),
        ({"notify": [PING, PING]}, "[[notify]] 'hc' is given twice"),
        ({"mqtt": [{}]}, "mqtt: must be a table: [mqtt]"),
    ],
)
def test_a_wrong_value_is_told(tables, told):
    """Each mistake has its table and key."""
    lines = refused(**tables)
    assert any(told in line for line in lines), lines


def test_no_secret_is_shown():
    """`config.show` has a stand-in, and a settings value does not print it."""
    content = {"notify": [PING], "mqtt": {"user": "u", "password": "pw-secret"}}
    shown = [each.value for each in effective_values(content)]
    assert "…" in shown
    assert "pw-secret" not in str(shown)
    assert PING["url"] not in str(shown)
    told = repr(read_settings(content, ""))
    assert "pw-secret" not in told
    assert PING["url"] not in told


def test_a_secret_is_the_first_line_of_its_file(tmp_path, monkeypatch):
    """A name without a slash is a credential of systemd; a path is a path, ~ the home."""
    (tmp_path / "token").write_text("tk_1\nmore\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Secret("t", file="~/token").read() == "tk_1"
    with pytest.raises(StepFailed, match="its file is a credential of systemd, and this run has"):
        Secret("t", file="token").read()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Secret("t", file="token").read() == "tk_1"
    assert Secret("t", file=str(tmp_path / "token")).read() == "tk_1"


def test_a_secret_that_cannot_be_had_is_told_without_it(tmp_path, monkeypatch):
    """The reason names the key, the file or the program: nothing that the program printed."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("iotstack_invoke.settings.secret.LIMIT_S", 0.2)
    for secret, told in (
        (Secret("t", file=f"{tmp_path}/gone"), "No such file"),
        (Secret("t", file=f"{tmp_path}/empty"), "is empty"),
        (Secret("t", file=f"{tmp_path}/bytes"), "is not a text"),
        (Secret("t", file=f"{tmp_path}/pipe"), "is not a regular file"),
        (Secret("t", command=("sh", "-c", "echo s3cret; exit 3")), "ended with exit code 3"),
        (Secret("t", command=("sh", "-c", "echo s3cret; exec sleep 9")), "did not end within"),
        (Secret("t", command=("no-such-program",)), "cannot run no-such-program"),
        (Secret("t", command=("true",)), "is empty"),
    ):
        with pytest.raises(StepFailed) as error:
            secret.read()
        assert str(error.value).startswith("t: ")
        assert told in str(error.value)
        assert "s3cret" not in str(error.value)
    assert Secret("t", command=("echo", "s3cret")).read() == "s3cret"
