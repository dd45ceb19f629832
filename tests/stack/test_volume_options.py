"""Which options of a volume may be told."""

import pytest

from iotstack_invoke.stack.volume_options import options_text, told_options


@pytest.mark.parametrize(
    ("o", "kept", "left_out"),
    [
        ("bind", "bind", ()),
        (
            "addr=192.168.1.2,nolock,soft,rw,nfsvers=4",
            "addr=192.168.1.2,nolock,soft,rw,nfsvers=4",
            (),
        ),
        ("username=a,password=b,vers=3.0", "vers=3.0", ("password", "username")),
        ("user=a,pass=b", None, ("pass", "user")),
        ("password=a,b,rw", "rw", ("another", "password")),
        ("password=a=b", None, ("password",)),
        ("credentials=/root/.smb,uid=1000", "uid=1000", ("credentials",)),
        ("Secret!=x", None, ("another",)),
        ("size=5m\nx", None, ("size",)),
        ("", None, ()),
    ],
)
def test_words_that_may_be_secret_are_left_out(o, kept, left_out):
    """What is not known to be harmless is."""
    told = told_options({"type": "cifs", "device": "//nas/x", "o": o})
    assert (told.options.get("o"), told.left_out) == (kept, left_out)


@pytest.mark.parametrize("device", ["//anna:s3cret@nas/x", "https://anna:s3cret@nas/x"])
def test_a_login_in_the_device(device):
    """It is left out whole."""
    told = told_options({"type": "davfs", "device": device, "token": "s3cret"})
    assert told.options == {"type": "davfs"}
    assert told.left_out == ("device", "token")


def test_the_words_for_options():
    """In the order that tells most first."""
    told = {"type": "ext4", "device": "/dev/sda1", "o": "noatime"}
    assert options_text(told) == "device /dev/sda1, type ext4, o noatime"
