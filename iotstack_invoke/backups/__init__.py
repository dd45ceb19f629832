"""What lies in the folder of the backups: names, manifests, sets; which stay, and what one lacks.

Judges what is listed or handed in; `transfer` copies one file.
"""
