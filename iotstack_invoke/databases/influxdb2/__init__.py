"""InfluxDB 2.x: dumped and checked. A restore leaves it to a person."""
