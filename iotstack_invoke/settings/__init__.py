"""hosts.toml: read, checked, and as frozen values."""
