"""Some of a dataset's examples, always the same ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.dataset import Examples
from mtlcli.data.shuffling import stable_seed
from mtlcli.training.assemble import Datasets


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
