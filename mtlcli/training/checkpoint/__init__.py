"""Checkpoint files: writing, verification and rotation."""
