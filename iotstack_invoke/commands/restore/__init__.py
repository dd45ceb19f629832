"""`restore`, `rehearse` and `reload-influxdb`: request, checks, and the run itself."""
