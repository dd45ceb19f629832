"""What several families of tasks use."""
