"""A stack with its backups and vaults, on this machine or another, and the owner's hooks."""
