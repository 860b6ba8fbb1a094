"""How related the tasks of an experiment are: a T×T matrix by each of several measures. See `docs/relations.md`."""
