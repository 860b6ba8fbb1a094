"""Download and verification of datasets' files."""
