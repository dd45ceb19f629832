"""Where copies of sets live: a folder, another machine, a cloud; plain or encrypted.

A new kind of vault is a `Storage` of its own, opened by `access`.
"""
