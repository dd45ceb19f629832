"""What is known of the runs and of the stack, and who is told: notifiers, Home Assistant, metrics."""
