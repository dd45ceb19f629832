"""Backup and restore of an IOTstack."""

__version__ = "0.1.0"
