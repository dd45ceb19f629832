"""What any program could use: errors with their exit codes, runtags, units, gzip streams.

Knows no host, no stack and no backup.
"""
