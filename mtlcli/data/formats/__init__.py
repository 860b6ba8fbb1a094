"""Readers of tables and images, and the encoding of their content."""
