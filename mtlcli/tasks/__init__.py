"""Task kinds: losses and metrics of predictions, and the base class for new ones.

The plugin API: a task kind subclasses `TaskKind`, and returns an object with the methods of `Metrics`. The type
`TargetSpec`, by which it receives its target, and `is_labelled` are in `mtlcli.specs`.
"""

from mtlcli.tasks.base import Direction, Metrics, TargetTypeError, TaskKind, masked_mean
from mtlcli.tasks.decoding import Decoded

__all__ = ["Decoded", "Direction", "Metrics", "TargetTypeError", "TaskKind", "masked_mean"]


def __dir__() -> list[str]:
    return sorted(__all__)
