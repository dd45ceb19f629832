"""Where copies of sets are kept: a folder, another machine, a cloud; plain or encrypted.

A new kind of vault is another `Storage` class, opened by `access`.
"""
