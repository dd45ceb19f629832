"""What is known of the runs and the stack, and who is told: people, Home Assistant, metrics."""
