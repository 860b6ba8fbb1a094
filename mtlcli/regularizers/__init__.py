"""Regularizers: terms added to the objective, and the base class for new ones.

The plugin API: a regularizer subclasses `Regularizer`, and is constructed for a `Subject`. The type `TrunkPass`, which
it receives in every step, is in `mtlcli.specs`.
"""

from mtlcli.regularizers.base import Regularizer, Subject

__all__ = ["Regularizer", "Subject"]


def __dir__() -> list[str]:
    return sorted(__all__)
