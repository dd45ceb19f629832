"""`python -m iotstack_invoke` is `iotstack`."""

from .cli.command import main

main()
