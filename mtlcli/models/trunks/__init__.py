"""Trunks: networks from an input to a feature vector."""
