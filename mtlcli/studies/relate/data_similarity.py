"""`data`: similarity of the tasks' inputs and, where they share examples, of their labels."""

from __future__ import annotations

import itertools
import math
import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.models.inputs import OneHot
from mtlcli.specs import DatasetSpec
from mtlcli.studies.compare.statistics import FEWEST
from mtlcli.studies.relate.intervals import DATA_RESAMPLES, bootstrap_counts, centred_percentiles, with_interval
from mtlcli.studies.relate.label_similarity import common_labels, label_interval, label_similarity
from mtlcli.studies.relate.relation import Matrix, Relation, named, symmetric
from mtlcli.studies.relate.task_labels import examples_of, labels, nature, subsample
from mtlcli.training.assembly.data_checks import Datasets
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


COMPONENTS = 50


def input_similarity(first: Matrix, second: Matrix) -> float:
    """1 − d_A / 2, with the proxy A-distance d_A = 2 (1 − 2ε): 1 for the same distribution, 0 for two that never mix.

    ε: the error, at most ½, of a logistic regression that tells the one's inputs from the other's, on inputs it wasn't
    fitted to. So the similarity is 2 min(ε, ½).

    first, second: inputs [n, D] and [m, D], as they are; as many of each are used as the smaller has, every other one
    to fit and the rest to judge. Before, they are standardized and reduced to at most 50 principal components, of the
    part that is fitted to.

    Source: Ben-David et al., "Analysis of representations for domain adaptation", 2006.
    """
    fitted, judged = _halves(first, second)
    if not np.ptp(fitted, axis=0).any():  # all the same: nothing to tell them apart by
        return 1.0
    return 2 * min(float(np.mean(_fit(fitted).predict(judged) != _dataset(judged))), 0.5)


def input_interval(first: Matrix, second: Matrix) -> tuple[float, float]:
    """Compute the bootstrap interval of `input_similarity` over the examples of each dataset.

    Each resample draws, for each dataset, from the examples that are fitted to and from those that are judged, and the
    logistic regression is fitted again; the standardization and the principal components are those of the sample. The
    interval of the error ε is that of `centred_percentiles`; that of the similarity is its image under 2 min(ε, ½).

    Args:
        first: Inputs of one dataset, [n, D].
        second: Inputs of the other dataset, [m, D].

    Returns:
        Lower and upper bound; NaN if fewer than three examples of a dataset are judged.
    """
    if first.mean() > second.mean():  # the draws don't depend on which dataset is the first
        first, second = second, first
    fitted, judged = _halves(first, second)
    if len(judged) // 2 < FEWEST:
        return math.nan, math.nan
    if not np.ptp(fitted, axis=0).any():
        return 1.0, 1.0
    pipeline = _fit(fitted)
    error = float(np.mean(pipeline.predict(judged) != _dataset(judged)))
    projection, classifier = pipeline[:-1], pipeline[-1].set_params(warm_start=True)
    x, y = projection.transform(fitted), _dataset(fitted)
    x_judged, y_judged = projection.transform(judged), _dataset(judged)
    generator = np.random.default_rng(len(fitted))
    weights, judged_weights = _input_counts(len(fitted), generator), _input_counts(len(judged), generator)
    errors = np.empty(DATA_RESAMPLES)
    with _unconverged():
        for number in range(DATA_RESAMPLES):
            classifier.fit(x, y, sample_weight=weights[number])
            errors[number] = judged_weights[number] @ (classifier.predict(x_judged) != y_judged) / len(judged)
    low, high = (2 * np.clip(centred_percentiles(error, errors), 0, 0.5)).round(12).tolist()
    return low, high


def compared_inputs(first: Matrix, second: Matrix) -> int:
    """Return how many inputs of each dataset are compared."""
    return min(len(first), len(second))


def _halves(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Inputs to fit and to judge, [2k, D] each; the datasets alternate."""
    size = compared_inputs(first, second)
    x = np.stack([first[:size], second[:size]], axis=1)  # [size, 2, D]
    return x[::2].reshape(-1, x.shape[2]), x[1::2].reshape(-1, x.shape[2])


def _dataset(inputs: Matrix) -> NDArray[np.int64]:
    """The dataset, 0 or 1, of each of the inputs of `_halves`."""
    return np.tile([0, 1], len(inputs) // 2)


def _input_counts(inputs: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Bootstrap samples of the inputs of `_halves`, [R, inputs], drawn for each dataset apart."""
    samples = [bootstrap_counts(inputs // 2, DATA_RESAMPLES, generator) for _ in range(2)]
    return np.stack(samples, axis=2).reshape(DATA_RESAMPLES, inputs)


def _fit(inputs: Matrix) -> Any:
    """The fitted classifier of the dataset of an input."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    components = min(COMPONENTS, *inputs.shape)
    classifier = make_pipeline(
        StandardScaler(), PCA(components, random_state=0), StandardScaler(), LogisticRegression(max_iter=200)
    )
    with _unconverged():
        return classifier.fit(inputs, _dataset(inputs))


def _unconverged() -> AbstractContextManager[object]:
    """Ignore that a fit stops at the limit of iterations: its error bounds the distance all the same."""
    from sklearn.exceptions import ConvergenceWarning

    return warnings.catch_warnings(action="ignore", category=ConvergenceWarning)
