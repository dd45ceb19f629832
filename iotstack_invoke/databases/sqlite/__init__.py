"""SQLite: files that are copied whole while their programs write."""
