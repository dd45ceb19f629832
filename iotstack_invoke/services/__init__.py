"""The known services, and how the data of each are saved: `table.toml`.

A new service is a new row of the table. Reads the table; asks no machine.
"""
