"""Tasks with their flags, the console program, one task on several hosts. No logic."""
