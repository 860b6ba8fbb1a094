"""Merging of trained runs into one multi-task model."""
