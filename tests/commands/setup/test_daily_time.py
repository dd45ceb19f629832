"""`init` installs the schedule that was asked for."""

from test_schedule import read, stack  # noqa: F401


def test_the_time_that_is_answered_is_installed(stack):
    """By cron here; again it changes nothing, and another time shows the command."""
    usb = stack.settings.parent / "usb"
    usb.mkdir()
    line = f"init --copies {usb} --at"
    found = stack.run(f"{line} 4:30")
    assert found.returncode == 0, found.stderr
    block = read(stack)
    assert "30 4 * * *" in block
    assert "rehearse" in block
    assert "schedule: the next backup is at" in found.stdout
    assert stack.run(f"{line} 04:30").returncode == 0
    assert "inv schedule.install --at 05:00" in stack.run(f"{line} 5:00").stdout
    assert "Backups at 04:30 go on." in stack.run(f"{line} never").stdout
    assert read(stack) == block
