"""Samplers, which compose the steps of an epoch from the examples of several datasets."""
