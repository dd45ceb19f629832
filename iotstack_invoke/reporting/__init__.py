"""Everything that a user sees or reads later: progress, tables, errors, the log of a run."""
