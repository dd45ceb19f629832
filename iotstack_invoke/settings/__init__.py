"""hosts.toml: reading it, checking it, its values."""
