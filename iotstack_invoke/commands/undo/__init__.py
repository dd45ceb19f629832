"""`undo`, the states that a restore replaced, and what a dead run left behind."""
