"""The regularizers that ship with `mtl`, one in each module."""
