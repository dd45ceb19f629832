"""InfluxDB 2.x: dumped and verified. A user restores it by hand."""
