"""`sync`, and the delivery of missing copies after a backup."""
