"""A task's labels as NumPy arrays, by their nature."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.data.shuffling import stable_seed
from mtlcli.specs import is_labelled
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.data_checks import Datasets

Nature = Literal["classes", "binary", "multilabel", "real"]
Labels = NDArray[np.float64]


def nature(kind: TaskKind) -> Nature:
    """What a task's labels are to it: the type of its target, but numbers for regression, whatever its target is."""
    return "real" if kind.likelihood == "gaussian" else kind.target.type


def labels(target: Tensor) -> Labels:
    """float64 [n] or [n, labels]; a missing label is NaN. target: as `TargetSpec` says."""
    return target.double().masked_fill(~is_labelled(target), torch.nan).cpu().numpy()


def examples_of(opened: Datasets, alias: str, split: str, seed: int) -> Examples:
    """The examples of a split of an opened dataset."""
    return opened[alias][0].examples(split, seed)


def subsample(examples: Examples, amount: int) -> Examples:
    """At most `amount` of the examples, drawn without replacement, with inputs and targets of their own, in memory.

    Which ones depends on the number of examples alone, so a dataset under two names gives the same.
    """
    order = np.random.default_rng(stable_seed("relate", len(examples))).permutation(len(examples))[:amount]
    chosen = torch.from_numpy(np.sort(order))
    rows = chosen if examples.rows is None else examples.rows[chosen]
    inputs = examples.inputs
    picked = inputs[rows] if isinstance(inputs, Tensor) else torch.stack([inputs[row] for row in rows.tolist()])
    return Examples(picked, {name: target[rows] for name, target in examples.targets.items()})
