"""Weights of examples that are passed from Python."""

from __future__ import annotations

import numpy as np
import torch

from mtlcli.data.formats.python_arrays import PythonData
from mtlcli.data.formats.weight_column import LARGEST
from mtlcli.errors import ConfigError, suggest


def take_weights(data: PythonData, name: str, split: str) -> PythonData:
    """Take the weights of the examples from the targets.

    Args:
        data: The examples of a split.
        name: Name under which the weights were passed.
        split: The split, for messages; "" if the data isn't divided into splits.

    Returns:
        The examples, with weights in place of that target.

    Raises:
        ConfigError: There are no such values, or one is missing, negative, not finite or no number.
    """
    where = f"split {split!r}: " if split else ""
    targets = dict(data.targets)
    if name not in targets:
        hint = f"{suggest(name, targets)} They have: {', '.join(targets)}"
        raise ConfigError(f"{where}`weights` names {name!r}, which the examples don't have.{hint}")
    try:
        weights = targets.pop(name).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}a weight of {name!r} is not a number: {error}") from error
    if weights.ndim != 1:
        raise ConfigError(f"{where}the weights {name!r} are {list(weights.shape)}, expected one of each example")
    if not targets and not data.maps:
        raise ConfigError(f"{where}the data has no target, only the weights {name!r}")
    if len(wrong := np.flatnonzero(~((weights >= 0) & (weights <= LARGEST)))):
        problem = f"the weight of example {wrong[0]} in {name!r} is {weights[wrong[0]]:g}"
        raise ConfigError(f"{where}{problem}, expected a number from 0 to {LARGEST:g}")
    return PythonData(data.inputs, targets, torch.from_numpy(weights.astype(np.float32)), data.maps)
