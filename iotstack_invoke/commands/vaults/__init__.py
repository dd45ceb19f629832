"""`sync`, and what delivers missing copies after a backup."""
