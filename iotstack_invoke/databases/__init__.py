"""Each kind of database: how it is dumped, checked, loaded and counted. One folder a kind."""
