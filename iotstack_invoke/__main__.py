"""`python -m iotstack_invoke` is `iotstack`."""

from .program import main

main()
