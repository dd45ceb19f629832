"""The services that are known, and how the data of each are saved: `table.toml`.

A new service is a row of the table. Reads the table; asks no machine.
"""
