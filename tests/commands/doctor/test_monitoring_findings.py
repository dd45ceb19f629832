"""Doctor finds a notification that cannot be sent, and a secret that others can read."""

import pytest


def test_without_notifications_silence_is_named(little_stack):
    """It is a hint with a page: a monitor that the program does not know may exist."""
    done = little_stack.run("doctor")
    assert "a backup that fails or never comes sends no message" in done.stdout


@pytest.fixture
def told(little_stack, tmp_path):
    (tmp_path / "url").write_text("https://ntfy.sh/s3cr3t\n")
    (tmp_path / "url").chmod(0o600)
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[notify]]\nname = "phone"\nkind = "ntfy"\nurl_file = "{tmp_path}/url"\n'
            f'[metrics]\ntextfile = "{tmp_path}/none/x.prom"\n'
        )
    return little_stack


def test_what_is_missing_is_named(told, tmp_path):
    """A file with a secret, a folder for metrics."""
    done = told.run("doctor")
    assert "ntfy, all tasks" in done.stdout
    assert f"{tmp_path}/none cannot be written" in done.stdout
    assert "has one" not in done.stdout
    (tmp_path / "url").unlink()
    done = told.run("doctor")
    assert "[[notify]] phone: url: cannot read" in done.stdout


def test_each_secret_of_a_notifier_is_looked_at(told, tmp_path):
    """Not only its address: a token as well."""
    text = told.settings.read_text()
    told.settings.write_text(
        text.replace("[metrics]", f'token_file = "{tmp_path}/lost"\n[metrics]')
    )
    assert "[[notify]] phone: token: cannot read" in told.run("doctor").stdout


def test_a_secret_that_others_can_read_is_named(told, tmp_path):
    """Its file, or hosts.toml if it stands there; never the secret itself."""
    (tmp_path / "url").chmod(0o644)
    done = told.run("doctor")
    assert f"others can read {tmp_path}/url, which has one" in done.stdout
    told.settings.write_text(
        told.settings.read_text().replace(
            f'url_file = "{tmp_path}/url"', 'url = "https://ntfy.sh/s3cr3t"'
        )
    )
    told.settings.chmod(0o644)
    done = told.run("doctor")
    assert f"chmod 600 {told.settings}" in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr
