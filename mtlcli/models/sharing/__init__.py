"""Sharings: the ways in which tasks share trunks."""
