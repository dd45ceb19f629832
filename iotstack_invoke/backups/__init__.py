"""The contents of the backup folder: names, manifests, sets; which sets stay, what a set lacks.

Works on listings and values passed in; only `transfer` copies a file.
"""
