"""`data`: similarity of the tasks' inputs and, where they share examples, of their labels."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.dataset import Examples
from mtlcli.models.one_hot import OneHot
from mtlcli.specs import DatasetSpec
from mtlcli.studies.relate.input_similarity import compared_inputs, input_interval, input_similarity
from mtlcli.studies.relate.intervals import DATA_RESAMPLES, bootstrap_counts, with_interval
from mtlcli.studies.relate.label_similarity import common_labels, label_interval, label_similarity
from mtlcli.studies.relate.labels import labels, nature
from mtlcli.studies.relate.relation import Matrix, Relation, named, symmetric
from mtlcli.studies.relate.subsample import examples_of, subsample
from mtlcli.training.assemble import Datasets
from mtlcli.training.run import Run

EXAMPLES = 4000  # the most of each dataset that labels are compared on
INPUTS = 2000  # the most of each dataset that inputs are compared on


def data_relation(plan: Run, opened: Datasets) -> Relation:
    """Of two tasks on the same dataset the similarity of their labels, of two on different ones that of their inputs.

    The same dataset is one of the same name and options, whatever the YAML calls it: its inputs have a similarity of
    exactly 1, which leaves the labels to tell the tasks apart. Labels of different examples can't be compared.
    plan: the joint experiment's parts. All is of the split `train`. The interval is the bootstrap's over the examples.
    """
    joint, tasks = plan.experiment, list(plan.kinds)
    first = {
        alias: next(a for a in plan.specs if joint.datasets[a] == entry) for alias, entry in joint.datasets.items()
    }
    parts = {
        alias: subsample(examples_of(opened, alias, "train", joint.seed), EXAMPLES) for alias in set(first.values())
    }
    on = [first[plan.sources[task][0]] for task in tasks]
    target = [
        (nature(plan.kinds[task]), labels(parts[alias].targets[plan.sources[task][1]]))
        for task, alias in zip(tasks, on, strict=True)
    ]
    of_inputs = {
        (a, b): _compare_inputs(_inputs(parts[a], plan.specs[a]), _inputs(parts[b], plan.specs[b]))
        for a, b in itertools.combinations(sorted(set(on)), 2)
    }
    counts = {alias: _counts(parts[alias]) for alias in set(on)}
    by_labels, by_inputs, examples, low, high = np.full((5, len(tasks), len(tasks)), np.nan)
    for i, j in zip(*np.triu_indices(len(tasks), 1), strict=True):
        if on[i] == on[j]:
            by_labels[i, j], by_inputs[i, j] = label_similarity(target[i], target[j]), 1.0
            low[i, j], high[i, j] = label_interval(target[i], target[j], counts[on[i]])
            examples[i, j] = examples[j, i] = common_labels(target[i][1], target[j][1])
        else:
            pair = min(on[i], on[j]), max(on[i], on[j])
            by_inputs[i, j], (low[i, j], high[i, j]), number = of_inputs[pair]
            examples[i, j] = examples[j, i] = number
    np.fill_diagonal(examples, [common_labels(values, values) for _, values in target])
    same = np.array([[a == b for b in on] for a in on])
    by_labels, by_inputs = symmetric(by_labels), symmetric(by_inputs)
    interval = np.stack([symmetric(low), symmetric(high)])
    numbers = {
        **with_interval(tasks, interval, f"bootstrap over examples, {DATA_RESAMPLES} resamples"),
        "examples": named(tasks, examples),
        "labels": named(tasks, by_labels),
        "inputs": named(tasks, by_inputs),
    }
    return Relation(tasks, np.where(same, by_labels, by_inputs), numbers)


def _counts(examples: Examples) -> NDArray[np.int64]:
    """Bootstrap samples of a dataset's examples, [R, n]."""
    return bootstrap_counts(len(examples), DATA_RESAMPLES, np.random.default_rng(len(examples)))


def _compare_inputs(first: Matrix, second: Matrix) -> tuple[float, tuple[float, float], int]:
    """Similarity, its interval, and the number of inputs of each dataset that it is of."""
    return input_similarity(first, second), input_interval(first, second), compared_inputs(first, second)


def _inputs(examples: Examples, spec: DatasetSpec) -> Matrix:
    """[n, D], as they are; a table's categories one-hot."""
    assert isinstance(examples.inputs, Tensor)
    chosen = examples.inputs[:INPUTS]
    flat: Matrix = (OneHot(spec.columns)(chosen) if spec.columns else chosen.flatten(1)).double().numpy()
    return flat
