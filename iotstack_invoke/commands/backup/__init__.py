"""`backup`: facts, judgement, and the run itself."""
