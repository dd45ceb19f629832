"""The tasks about sets that exist: list, show, diff, verify, prune, pin, status, key."""
