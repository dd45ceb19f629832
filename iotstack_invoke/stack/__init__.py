"""A compose project and its containers: facts from Docker, paths, stop, swap and start."""
