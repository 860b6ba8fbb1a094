"""Examples that are read in sequence, shuffled by a buffer, for data that fits neither memory nor disk."""
