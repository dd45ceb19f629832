"""Vaults: opened when they are first used, tried anew after a failure, never made by us."""

import pytest

from iotstack_invoke.errors import Unreachable
from iotstack_invoke.settings import Vault
from iotstack_invoke.vaults import vault_place


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    """A drive that is not mounted is told as such, and found as soon as it is."""
    place = vault_place(Vault("usb", str(tmp_path / "usb")))
    assert (place.name, place.root) == ("usb", str(tmp_path / "usb"))
    for _ in range(2):
        with pytest.raises(Unreachable, match="Is the drive mounted"):
            place.names(place.root)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "usb").mkdir()
    assert place.names(place.root) == {}
    place.close()


def test_a_vault_that_nobody_used_opens_nothing(sshd):
    """Making a place of a vault, and closing it, costs no login."""
    place = vault_place(Vault("nas", "/", sshd.login()))
    place.close()
    assert "Accepted" not in (sshd.folder / "log").read_text()


def test_a_folder_that_is_missing_over_there_is_told_with_the_way_out(sshd, tmp_path):
    """Where the other machine lacks the folder, the message has the command that makes it."""
    place = vault_place(Vault("nas", str(tmp_path / "far"), sshd.login()))
    with pytest.raises(Unreachable, match=r"has no folder .*far.*mkdir -p"):
        place.names(place.root)
    (tmp_path / "far").mkdir()
    assert place.names(place.root) == {}
    place.close()


def test_a_vault_that_came_back_is_used(sshd, tmp_path):
    """A machine that refused us once is asked again by the next who needs it."""
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("")
    place = vault_place(Vault("nas", str(tmp_path), sshd.login()))
    with pytest.raises(Unreachable, match="not known"):
        place.look([place.root])
    sshd.known_hosts.write_text(known)
    assert place.look([place.root])[place.root].is_folder
    place.close()
