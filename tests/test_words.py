"""What was told twice, or in a way that nobody understands, is told once and plainly."""

from datetime import UTC, datetime, timedelta

from contexts import put_set

from iotstack_invoke.commands.vaults.replication import Delivery
from iotstack_invoke.hosts.ssh_settings import Ssh


def test_what_is_passed_over_is_told_once_by_diff(little_stack):
    """Both sets may be asked for as the latest."""
    now = datetime.now(UTC)
    backups = little_stack.folder / "backups"
    backups.mkdir()
    put_set(backups, now - timedelta(days=2), runtag="old")
    put_set(backups, now - timedelta(days=1), runtag="bad")
    (backups / "bad.general-backup.tar.gz").write_bytes(b"x")
    told = little_stack.run("diff latest latest")
    assert told.stderr.count("PASSED OVER: bad") == 1


def test_sets_that_are_not_delivered_for_one_reason_are_one_line():
    """A disk that is full is told once, with the names of all sets; another reason by itself."""
    full = "On small 2.1 MB are free, which is too little for a file of 3.0 MB."
    found = Delivery("small", None, None, failed={"a": full, "b": "it is cut", "c": full})
    assert found.troubles == (
        f"a, c were not copied to small: {full}",
        "b was not copied to small: it is cut.",
    )


def test_a_machine_that_is_called_as_its_address_is_named_once():
    """`nas (nas)` says nothing more."""
    assert Ssh("nas").called("nas") == "nas"
    assert Ssh("192.168.1.5").called("nas") == "nas (192.168.1.5)"
