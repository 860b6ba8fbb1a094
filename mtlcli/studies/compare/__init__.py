"""Comparison of methods with one another and with single-task baselines."""
