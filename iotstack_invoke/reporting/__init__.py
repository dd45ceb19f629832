"""All that a person sees or reads later: progress, tables, errors, the log of a run."""
