"""Sets the program up on a machine: its settings, its schedule."""
