"""Weights of classes in the loss of a task."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtlcli.data.examples import Examples
from mtlcli.data.map_counts import CHUNK, count_classes
from mtlcli.errors import ConfigError, suggest
from mtlcli.specs import is_labelled
from mtlcli.tasks.base import TaskKind
from mtlcli.text import join_names

LOG = logging.getLogger("mtl")
ClassWeights = Literal["balanced"] | Mapping[str, float]


def check_class_weights(given: ClassWeights, kind: TaskKind) -> None:
    """Check the option `class_weights` of a task.

    Args:
        given: the option.
        kind: kind of the task.

    Raises:
        ValueError: the kind has no classes, or the option names an unknown class, or gives all classes the weight 0.
    """
    if not kind.weighs_classes:
        raise ValueError(
            "needs a kind with classes, `classification`, `binary`, `ordinal`, `tagging` or `segmentation`"
        )
    if given != "balanced":
        explicit_weights(given, kind)


def explicit_weights(given: Mapping[str, float], kind: TaskKind) -> Tensor:
    """Return the weights of all classes if those of some are given.

    Args:
        given: class → weight.
        kind: kind of the task.

    Returns:
        Weights, float64 [K]; 1 for a class that isn't named.

    Raises:
        ValueError: the target has no such class, or all weights are 0.
    """
    names = kind.target.class_names
    weights = torch.ones(len(names), dtype=torch.float64)
    for name, weight in given.items():
        weights[find_class(name, names)] = weight
    if not bool(weights.any()):
        raise ValueError("all classes have the weight 0")
    return weights


def find_class(name: str | float, names: tuple[str, ...]) -> int:
    """Return the index of a class.

    Args:
        name: the class, as written in the experiment; for the classes 0 and 1, `false` and `true` are also accepted.
        names: names of all classes.

    Returns:
        The index.

    Raises:
        ValueError: there is no such class.
    """
    wanted = str(name)
    if names == ("0", "1"):
        wanted = {"true": "1", "false": "0"}.get(wanted.lower(), wanted)
    if wanted not in names and isinstance(name, float) and name.is_integer():
        wanted = str(int(name))
    if wanted not in names:
        raise ValueError(
            f"the target has no class {wanted!r}.{suggest(wanted, names)} Its classes: {join_names(names)}"
        )
    return names.index(wanted)


def fit_class_weights(given: ClassWeights, kind: TaskKind, train: Examples, target: str, task: str) -> Tensor:
    """Compute the class weights of a task from its training examples.

    `balanced` is scikit-learn's definition: n / (K · n_k) for a class k with n_k of the n labelled examples, where K is
    the number of classes that occur. With weights of examples, n and n_k are their sums. Of a target that is a map, the
    pixels are counted, of a target with a class for each word the words. A class that doesn't occur has the weight 1,
    which matters in evaluations only.

    Args:
        given: the option `class_weights` of the task.
        kind: kind of the task.
        train: the training examples.
        target: key of the labels of the task in the examples.
        task: name of the task, for the log.

    Returns:
        Weights, float64 [K].

    Raises:
        ConfigError: no example is labelled.
    """
    if given != "balanced":
        return explicit_weights(given, kind)
    names = kind.target.class_names
    counts = _count_pixels(train, target, kind) if kind.target.is_map else _count_labels(train, target, len(names))
    if not bool(counts.any()):
        raise ConfigError("`balanced` needs labelled training examples, and the task has none")
    absent = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
    if absent:
        LOG.warning(
            "tasks.%s.class_weights: no training example of %s, whose weight in evaluations is 1",
            task,
            join_names(absent),
        )
    return torch.where(counts > 0, counts.sum() / ((len(names) - len(absent)) * counts), 1.0)


def _count_labels(train: Examples, target: str, classes: int) -> Tensor:
    """Return the sum of the weights of the labels of each class, float64 [K]."""
    labels, weights = train.labels(target), train.sample_weights()
    labelled = is_labelled(labels)
    amounts = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights.double()
    amounts = amounts if labels.ndim == 1 else amounts.unsqueeze(1).expand_as(labels)
    return torch.bincount(labels[labelled].long(), amounts[labelled], minlength=classes)


def _count_pixels(train: Examples, target: str, kind: TaskKind) -> Tensor:
    """Return the sum of the weights of the pixels of each class, float64 [K]."""
    counts = torch.cat([count_classes(maps, kind.target) for maps in train.iterate_maps(target, CHUNK)]).double()
    weights = train.sample_weights()
    return counts.sum(0) if weights is None else weights.double() @ counts


def restore_class_weights(saved: Any, kinds: Mapping[str, TaskKind]) -> dict[str, Tensor]:
    """Return the class weights in a checkpoint.

    Args:
        saved: task → weight of each class, as plain data.
        kinds: task → kind.

    Returns:
        Task → weights, float64 [K].

    Raises:
        ConfigError: the data is invalid.
    """
    restored = {}
    for task, weights in saved.items() if isinstance(saved, dict) else [("", None)]:
        size = len(kinds[task].target.class_names) if task in kinds else -1
        if not isinstance(weights, list) or len(weights) != size or not all(map(_is_weight, weights)):
            raise ConfigError("the class weights in the checkpoint are invalid")
        restored[task] = torch.tensor(weights, dtype=torch.float64)
    return restored


def _is_weight(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value >= 0
