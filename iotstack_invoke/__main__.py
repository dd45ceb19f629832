"""`python -m iotstack_invoke` is `iotstack`."""

from .command import main

main()
