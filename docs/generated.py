"""What the scripts of this folder make: written, or compared with what is there (`--check`)."""

import sys
from collections.abc import Mapping
from pathlib import Path


def written(made: Mapping[Path, str], words: list[str]) -> int:
    """Write each text to its path and return 0; with `--check` return 1 if one differs, told."""
    if "--check" not in words:
        for path, text in made.items():
            path.write_text(text, "utf-8")
        return 0
    wrong = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in wrong:
        sys.stderr.write(f"{path} is not what the code says. Write it: python {sys.argv[0]}\n")
    return int(bool(wrong))
