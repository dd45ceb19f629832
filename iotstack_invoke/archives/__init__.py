"""Tar archives: packed, measured, and what may be in them."""
