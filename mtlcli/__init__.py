"""`mtl`: train multi-task models from a YAML file, and see with evidence which tasks should share a network."""

__version__ = "0.1.0"
