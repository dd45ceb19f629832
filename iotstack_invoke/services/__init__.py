"""What each container's data needs to be saved whole, one service a room."""
