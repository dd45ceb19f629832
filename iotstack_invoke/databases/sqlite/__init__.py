"""SQLite: consistent copies of files while their programs write."""
