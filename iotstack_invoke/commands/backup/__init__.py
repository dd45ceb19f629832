"""`backup`: facts, decisions, and the run itself."""
