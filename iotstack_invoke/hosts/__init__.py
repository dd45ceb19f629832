"""Hosts and storage: this machine, others over SSH or SFTP, and how each is asked for facts.

Knows no backup.
"""
