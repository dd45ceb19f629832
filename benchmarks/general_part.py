"""The general part (tar, compress, hash, sync) against the seed's `tar -czf`.

    python benchmarks/general_part.py [MEGABYTES]

The reach: wall ≤ 0.15, CPU ≤ 0.20, size ≤ 1.08.
"""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
import corpus
import pairs
from context import Context

from iotstack_invoke.archives.pack import PackStack, tar_words
from iotstack_invoke.engine.steps import File
from iotstack_invoke.hosts.local import LocalHost


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        folder = f"{top}/IOTstack"
        corpus.make(folder, megabytes=megabytes)
        members = ("./docker-compose.yml", "./services", "./volumes")
        output = File("pi", "ours.tar.gz", top)
        step = PackStack(output, tar_words((), folder), members, 3600)
        seed = ("tar", "-czf", f"{top}/seed.tar.gz", "-C", folder, *members)
        pairs.compare(
            ("ours", lambda: step.do(Context(LocalHost(folder)))),
            ("tar -czf", lambda: subprocess.run(seed, check=True)),
            reach={"wall": 0.15, "CPU": 0.2},
        )
        size = os.path.getsize(output.partial) / os.path.getsize(f"{top}/seed.tar.gz")
        print(f"ours / tar -czf, size: {size:.3f}{pairs.verdict(size, 1.08)}")


main()
