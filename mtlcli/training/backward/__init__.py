"""Backward passes of a training step."""
