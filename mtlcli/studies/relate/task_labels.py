"""Labels of tasks as NumPy arrays."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.data.examples import StreamedExamples
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.samplers.base import stable_seed
from mtlcli.errors import ConfigError
from mtlcli.specs import is_labelled
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.data_checks import Datasets

LabelType = Literal["classes", "binary", "multilabel", "real"]
Labels = NDArray[np.float64]


def label_type(kind: TaskKind) -> LabelType:
    """Return the type of a task's labels: that of its target, or `real` for a kind whose labels are numbers.

    Args:
        kind: the task's kind.

    Returns:
        The type.

    Raises:
        ConfigError: the task has a label for each word or pixel, or generates texts.
    """
    if kind.generates or kind.target.type == "text":
        raise ConfigError("labels of examples are compared, and a task of kind 'generation' has texts")
    if kind.target.type == "tags":
        raise ConfigError("labels of examples are compared, and a task of kind 'tagging' has a label for each word")
    if kind.target.is_map:
        raise ConfigError("labels of examples are compared, and a task has a label for each pixel")
    return "real" if kind.numeric or kind.likelihood == "gaussian" else kind.target.type  # type: ignore[return-value]


def to_labels(target: Tensor) -> Labels:
    """Convert a target to labels.

    Args:
        target: [n] or [n, labels], see `TargetSpec`.

    Returns:
        The labels in float64, of the same shape; a missing label is NaN.
    """
    return target.double().masked_fill(~is_labelled(target), torch.nan).cpu().numpy()


def subsample(opened: Datasets, alias: str, split: str, seed: int, size: int) -> Examples:
    """Draw examples of a split without replacement, and copy them to memory.

    The draw depends on the number of examples alone, so that a dataset with two aliases gives the same examples.

    Args:
        opened: the datasets.
        alias: alias of the dataset.
        split: the split.
        seed: seed of the run, which determines splits that the dataset does not define.
        size: largest number of examples to draw.

    Returns:
        At most `size` examples.
    """
    examples = opened[alias][0].examples(split, seed)
    order = np.random.default_rng(stable_seed("relate", len(examples))).permutation(len(examples))[:size]
    indices = torch.from_numpy(np.sort(order))
    if isinstance(examples, StreamedExamples):
        return examples.copy_rows(indices)
    rows = indices if examples.rows is None else examples.rows[indices]
    inputs = examples.inputs
    drawn: Tensor | TextRows
    if isinstance(inputs, TextRows):
        drawn = inputs.select(rows.numpy())
    else:
        drawn = inputs[rows] if isinstance(inputs, Tensor) else torch.stack([inputs[row] for row in rows.tolist()])
    weights = None if examples.weights is None else examples.weights[rows]
    return Examples(drawn, {name: target[rows] for name, target in examples.targets.items()}, weights=weights)
