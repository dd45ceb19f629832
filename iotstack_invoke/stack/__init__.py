"""A compose project and its containers: what Docker says, what is where, stop, swap and start."""
