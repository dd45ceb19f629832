"""Tests that run programs as other users do so as well where the checkout lies in a shut home."""

import os
import subprocess

import pytest
from contexts import not_root
from shut import COVERED, keep_and_cover, shut_folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a folder")
def test_what_is_kept_in_a_shut_folder_can_be_read_by_anybody(tmp_path):
    """The rest of that folder is out of sight, and outside of that namespace nothing changes."""
    home = tmp_path / "home"
    kept = home / "deep/kept"
    kept.mkdir(parents=True)
    (kept / "file").write_text("x")
    (home / "secret").write_text("y")
    other = not_root(kept)
    home.chmod(0o700)
    assert shut_folder(kept) == home
    words = keep_and_cover(home, used=[kept])
    script = f'set -e\n{COVERED}\nexec "$@"'
    own = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    look = ["sh", "-c", f"cat {kept}/file; ls -A {home}"]
    done = subprocess.run(
        [*own, *other, *look], env=os.environ | words, capture_output=True, text=True, check=True
    )
    assert done.stdout == "xdeep\n"
    assert (home / "secret").read_text() == "y"
