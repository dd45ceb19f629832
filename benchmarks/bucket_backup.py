"""A whole backup into a bucket, against the same into a folder, both through rclone.

    python benchmarks/bucket_backup.py [MEGABYTES]

The reach: wall ≤ 1.5. The bucket is that of moto, a Python server on this machine that shares its
processors. A copy in it is read back, while rclone hashes a folder without reading it back. The
benchmark also counts how many rclone programs a backup starts.
"""

import itertools
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, f"{os.path.dirname(__file__)}/../tests")
sys.path.insert(0, os.path.dirname(__file__))
import corpus
import pairs
from bucket import S3
from contexts import LittleStack


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        s3 = S3(Path(top) / "s3")
        try:
            measure(Path(top), s3, megabytes)
        finally:
            s3.stop()


def measure(top, s3, megabytes):
    """Print how long both take, and how often rclone is started."""
    os.environ.pop("AWS_CA_BUNDLE", None)
    s3.make_bucket("bench")
    rclone = f"{top}/rclone.conf"
    with open(rclone, "w") as stream:
        stream.write(f"{s3.settings.read_text()}[disk]\ntype = local\n")
    stack = LittleStack(top / "little")
    corpus.make(str(stack.folder), megabytes=megabytes)
    stack.environment["RCLONE_CONFIG"] = rclone
    started = top / "started"
    stack.tool("rclone", f'echo >> {started}; exec /usr/bin/rclone "$@"')
    text = f"{stack.settings.read_text()}exclude_defaults = false\n"
    numbers = itertools.count()

    def backup(remote):
        row = f'[[vaults]]\nname = "cloud"\nkind = "rclone"\nremote = "{remote}"\n'

        def act():
            started.write_text("")
            stack.settings.write_text(text + row)
            told = stack.run(f"backup --runtag r{next(numbers)}", limit_s=3600)
            assert told.returncode == 0, told.stderr

        return act

    bucket, folder = backup("s3:bench/backups"), backup(f"disk:{top}/vault")
    ways = ("a bucket", bucket), ("a folder", folder)
    pairs.compare(*ways, rounds=3, reach={"wall": 1.5})
    for name, act in ways:
        act()
        print(f"programs of rclone for {name}: {len(started.read_text())}")


main()
