"""Task kinds: losses and metrics of predictions, and the base class for new ones."""

from mtlcli.tasks.base import Direction, Metrics, TargetTypeError, TaskKind

__all__ = ["Direction", "Metrics", "TargetTypeError", "TaskKind"]
