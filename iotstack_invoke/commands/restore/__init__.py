"""`restore`, `rehearse` and `reload-influxdb`: request, judgement, and the run itself."""
