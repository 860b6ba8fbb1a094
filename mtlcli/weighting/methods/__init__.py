"""The weightings that ship with `mtl`, one per module."""
