"""InfluxDB 1.x: portable dumps, what they must hold, what its programs print."""
