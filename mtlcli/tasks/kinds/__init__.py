"""The task kinds that ship with `mtl`, one in each module."""
