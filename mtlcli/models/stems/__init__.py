"""Stems: encoders of single datasets in front of the shared trunk."""
