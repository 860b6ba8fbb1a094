"""Measures of how related tasks are."""
