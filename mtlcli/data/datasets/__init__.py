"""Datasets that ship with `mtl`."""
