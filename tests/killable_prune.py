"""`iotstack` that dies before its n-th change of a file: `python killable_prune.py N prune …`."""

import os
import sys

from iotstack_invoke.cli.program import main

LEFT = [int(sys.argv.pop(1))]


def mortal(change):
    """Return a change of files before which the program may die at once, as by a power cut."""

    def act(*arguments, **given):
        if not LEFT[0]:
            os._exit(99)
        LEFT[0] -= 1
        return change(*arguments, **given)

    return act


os.rename = mortal(os.rename)
os.unlink = mortal(os.unlink)
main()
