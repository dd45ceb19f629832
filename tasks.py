"""What `inv` can do in this checkout: the doors of iotstack_invoke, and those of its makers."""

import os
import sys

from invoke import Context, task

from iotstack_invoke.tasks import namespace

HERE = os.path.dirname(os.path.abspath(__file__))
namespace.configure({"iotstack": {"checkout": HERE}})


@task(auto_shortflags=False, help={"live": "Only the tests on the stand, or all but those."})
def test(context: Context, live: bool = True) -> None:  # noqa: PT028 - a task, not a test
    """Run the tests; those on the stand need root, and are skipped without it."""
    chosen = "" if live else "-m 'not live'"
    context.run(f"cd '{HERE}' && '{sys.executable}' -m pytest {chosen}", pty=sys.stdout.isatty())


namespace.add_task(test)
