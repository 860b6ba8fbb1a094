"""The regularizers there are, one file each."""
