"""What each task does, from the first look to the last word, one task a room."""
