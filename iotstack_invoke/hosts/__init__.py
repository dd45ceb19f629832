"""Machines and places for files: this one, others over SSH or SFTP, and what is asked of each.

Knows no backup.
"""
