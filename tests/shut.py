"""A checkout below a folder that is shut to other users, as a home is; tests run it as others too."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

COVERED = """
mount -t tmpfs tmpfs /mnt
n=0
for folder in $KEEP; do n=$((n + 1)); mkdir "/mnt/$n"; mount --bind "$folder" "/mnt/$n"; done
for folder in $COVER; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
n=0
for folder in $KEEP; do n=$((n + 1)); mkdir -p "$folder"; mount --move "/mnt/$n" "$folder"; done
umount /mnt
"""
"""A script that covers folders with empty ones, in a mount namespace; what is kept stays in them."""


def shut_folder(path):
    """The highest folder above a path that other users may not enter, or None."""
    shut = [each for each in path.parents if not each.stat().st_mode & 0o001]
    return shut[-1] if shut else None


def keep_and_cover(*covered, used=()):
    """The variables of COVERED with which anybody may use Python and this checkout.

    `covered` are covered anyway; `used` stay as well.
    """
    needed = sorted({Path(sys.base_prefix), Path(sys.prefix), CHECKOUT, *used})
    cover = {*covered, *filter(None, map(shut_folder, needed))}
    keep = [each for each in needed if cover & {*each.parents}]
    return {"KEEP": " ".join(map(str, keep)), "COVER": " ".join(map(str, sorted(cover)))}
