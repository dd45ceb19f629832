"""`undo`, the states that a restore replaced, and what a run that died left behind."""
