"""What each task does, from its first check to its last message. One folder a family of tasks."""
