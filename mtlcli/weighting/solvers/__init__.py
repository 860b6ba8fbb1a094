"""Solvers of the small problems in T variables that the weightings pose."""
