"""Heads: the last layers of a task, from its representation to its prediction."""
