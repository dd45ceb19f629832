"""What each task does, from its first question to its last word. One folder a family of tasks."""
