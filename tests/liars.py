"""A disk that says yes and does something else, when a file gets its name."""

LIAR = """
import os
real, DISK = os.rename, {disk!r}
def rename(old, new):
    if str(new).startswith(DISK + "/") and {word!r} in str(new):
        {does}
    else:
        real(old, new)
os.rename = rename
"""
"""A disk that does not what it is told, for every Python that starts beside such a file."""


def lies(stack, disk, word, does):
    """Let a disk lie when a file gets its name in which a word is."""
    folder = stack.folder.parent / "liar"
    folder.mkdir(exist_ok=True)
    text = LIAR.format(disk=str(disk), word=word, does=does)
    (folder / "sitecustomize.py").write_text(text)
    stack.environment["PYTHONPATH"] = str(folder)
