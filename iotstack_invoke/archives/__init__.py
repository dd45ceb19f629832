"""Tar archives: packing them, measuring them, checking their members."""
