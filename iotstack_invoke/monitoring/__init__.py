"""What is known of runs and the stack, for notifications, Home Assistant, and metrics."""
