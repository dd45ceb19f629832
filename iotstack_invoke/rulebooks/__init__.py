"""The rules themselves, readable by an owner of a Pi, one task a room."""
