"""A task's labels as NumPy arrays, by their nature."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.specs import IGNORE_INDEX
from mtlcli.tasks.kind import TaskKind

Nature = Literal["classes", "binary", "multilabel", "real"]
Labels = NDArray[np.float64]


def nature(kind: TaskKind) -> Nature:
    """What a task's labels are to it: the type of its target, but numbers for regression, whatever its target is."""
    return "real" if kind.likelihood == "gaussian" else kind.target.type


def labels(target: Tensor) -> Labels:
    """float64 [n] or [n, labels]; a missing label is NaN. target: as `TargetSpec` says."""
    found = target.cpu().double().numpy()
    return found if target.is_floating_point() else np.where(found == IGNORE_INDEX, np.nan, found)
