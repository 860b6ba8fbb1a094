"""Measure `data`: similarity of the labels of tasks on the same dataset, and of the inputs of different datasets."""

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
from mtlcli.data.formats.text_features import FEATURES, TextEncoding, fill_text
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.models.inputs import OneHot
from mtlcli.specs import DatasetSpec
from mtlcli.studies.compare.statistics import MIN_VALUES
from mtlcli.studies.relate.intervals import DATA_RESAMPLES, centred_interval, describe_interval, draw_bootstrap_counts
from mtlcli.studies.relate.label_similarity import common_labels, label_interval, label_similarity
from mtlcli.studies.relate.relation import Matrix, Relation, name_matrix, symmetrize
from mtlcli.studies.relate.task_labels import label_type, subsample, to_labels
from mtlcli.training.assembly.data_checks import Datasets
from mtlcli.training.run import Run

MAX_LABELS = 4000  # examples of a dataset whose labels are compared
MAX_INPUTS = 2000  # examples of a dataset whose inputs are compared
COMPONENTS = 50  # principal components of the inputs


def data_relation(joint_run: Run, opened: Datasets) -> Relation:
    """Compute the similarity of labels of tasks on the same dataset, and of inputs of tasks on different datasets.

    Datasets with the same name and options are the same, whatever their aliases. Their inputs are identical, so that
    only labels can distinguish their tasks; labels of different examples can't be compared. All examples are of the
    split `train`. The interval is a bootstrap over the examples.

    Args:
        joint_run: the parts of the joint run; its weights are not used.
        opened: the datasets of the joint run.

    Returns:
        The relation; `numbers` has the similarities of labels and of inputs.
    """
    joint, tasks = joint_run.experiment, list(joint_run.kinds)
    first_alias = {
        alias: next(a for a in joint_run.specs if joint.datasets[a] == entry) for alias, entry in joint.datasets.items()
    }
    examples = {alias: subsample(opened, alias, "train", joint.seed, MAX_LABELS) for alias in set(first_alias.values())}
    aliases = [first_alias[joint_run.sources[task][0]] for task in tasks]
    labels = [
        (label_type(joint_run.kinds[task]), to_labels(joint_run.labels(task, examples[alias].targets)))
        for task, alias in zip(tasks, aliases, strict=True)
    ]
    compared = {
        (a, b): _compare_inputs(_inputs(examples[a], joint_run.specs[a]), _inputs(examples[b], joint_run.specs[b]))
        for a, b in itertools.combinations(sorted(set(aliases)), 2)
    }
    resamples = {alias: _draw_resamples(examples[alias]) for alias in set(aliases)}
    by_labels, by_inputs, counts, low, high = np.full((5, len(tasks), len(tasks)), np.nan)
    for i, j in zip(*np.triu_indices(len(tasks), 1), strict=True):
        if aliases[i] == aliases[j]:
            by_labels[i, j], by_inputs[i, j] = label_similarity(labels[i], labels[j]), 1.0
            low[i, j], high[i, j] = label_interval(labels[i], labels[j], resamples[aliases[i]])
            counts[i, j] = counts[j, i] = common_labels(labels[i][1], labels[j][1])
        else:
            pair = min(aliases[i], aliases[j]), max(aliases[i], aliases[j])
            by_inputs[i, j], (low[i, j], high[i, j]), count = compared[pair]
            counts[i, j] = counts[j, i] = count
    np.fill_diagonal(counts, [common_labels(values, values) for _, values in labels])
    same_dataset = np.array([[a == b for b in aliases] for a in aliases])
    by_labels, by_inputs = symmetrize(by_labels), symmetrize(by_inputs)
    interval = np.stack([symmetrize(low), symmetrize(high)])
    numbers = {
        **describe_interval(tasks, interval, f"bootstrap over examples, {DATA_RESAMPLES} resamples"),
        "examples": name_matrix(tasks, counts),
        "labels": name_matrix(tasks, by_labels),
        "inputs": name_matrix(tasks, by_inputs),
    }
    return Relation(tasks, np.where(same_dataset, by_labels, by_inputs), numbers)


def _draw_resamples(examples: Examples) -> NDArray[np.int64]:
    """Draw bootstrap samples of the examples, [R, n]."""
    return draw_bootstrap_counts(len(examples), DATA_RESAMPLES, np.random.default_rng(len(examples)))


def _compare_inputs(first: Matrix, second: Matrix) -> tuple[float, tuple[float, float], int]:
    """Return the similarity, its interval, and the number of inputs compared of each dataset.

    Inputs of different shape can be distinguished without an error, so that their similarity is 0.
    """
    if first.shape[1] != second.shape[1]:
        return 0.0, (0.0, 0.0), min(len(first), len(second))
    return input_similarity(first, second), input_interval(first, second), _count_compared(first, second)


def _inputs(examples: Examples, spec: DatasetSpec) -> Matrix:
    """Raw inputs [n, D]; the categories of a table are one-hot encoded, and texts are hashed counts of words."""
    if isinstance(examples.inputs, TextRows):
        return _count_words(examples.inputs.slice(0, MAX_INPUTS))
    assert isinstance(examples.inputs, Tensor)
    inputs = examples.inputs[:MAX_INPUTS]
    flat: Matrix = (OneHot(spec.columns)(inputs) if spec.columns else inputs.flatten(1)).double().numpy()
    return flat


def _count_words(texts: TextRows) -> Matrix:
    """Return the hashed words of texts, [n, D], each row of length 1; both texts of a pair count together."""
    encoding = TextEncoding(1, (1.0,) * FEATURES)
    joined = [" ".join(part for part in row if part) for block in texts.blocks() for row in block]
    encoded = np.empty((len(joined), FEATURES), np.float32)
    fill_text(encoded, joined, np.arange(len(joined)), encoding, slice(None))
    return encoded.astype(np.float64)


def input_similarity(first: Matrix, second: Matrix) -> float:
    """Compute the similarity of two datasets, 1 − d_A / 2, with the proxy A-distance d_A = 2 (1 − 2ε).

    ε is the held-out error, at most ½, of a logistic regression that distinguishes their inputs. The similarity is
    therefore 2 min(ε, ½): 1 for the same distribution, 0 for distributions that can be separated. As many inputs of
    each dataset are used as the smaller one has; every other one is fitted to, the others are held out. They are
    standardized and reduced to at most 50 principal components, those of the inputs that are fitted to.

    Args:
        first: inputs of one dataset, [n, D].
        second: inputs of the other dataset, [m, D].

    Returns:
        The similarity.

    References:
        S. Ben-David, J. Blitzer, K. Crammer, F. Pereira: "Analysis of Representations for Domain Adaptation",
        NIPS 2006.
    """
    fitted, held_out = _split_inputs(first, second)
    if not np.ptp(fitted, axis=0).any():  # all inputs are equal
        return 1.0
    return 2 * min(float(np.mean(_fit(fitted).predict(held_out) != _dataset_of(held_out))), 0.5)


def input_interval(first: Matrix, second: Matrix) -> tuple[float, float]:
    """Compute the bootstrap interval of `input_similarity` over the examples of each dataset.

    Each resample draws, for each dataset, from the examples that are fitted to and from those that are held out, and
    the logistic regression is fitted again; the standardization and the principal components are those of the sample.
    The interval of the error ε is that of `centred_interval`; that of the similarity is its image under 2 min(ε, ½).

    Args:
        first: inputs of one dataset, [n, D].
        second: inputs of the other dataset, [m, D].

    Returns:
        Lower and upper bound; NaN if fewer than three examples of a dataset are held out.
    """
    if first.mean() > second.mean():  # the draws do not depend on which dataset is the first
        first, second = second, first
    fitted, held_out = _split_inputs(first, second)
    if len(held_out) // 2 < MIN_VALUES:
        return math.nan, math.nan
    if not np.ptp(fitted, axis=0).any():
        return 1.0, 1.0
    pipeline = _fit(fitted)
    error = float(np.mean(pipeline.predict(held_out) != _dataset_of(held_out)))
    projection, classifier = pipeline[:-1], pipeline[-1].set_params(warm_start=True)
    x, y = projection.transform(fitted), _dataset_of(fitted)
    x_out, y_out = projection.transform(held_out), _dataset_of(held_out)
    generator = np.random.default_rng(len(fitted))
    weights, weights_out = _draw_input_counts(len(fitted), generator), _draw_input_counts(len(held_out), generator)
    errors = np.empty(DATA_RESAMPLES)
    with _ignore_convergence():
        for index in range(DATA_RESAMPLES):
            classifier.fit(x, y, sample_weight=weights[index])
            errors[index] = weights_out[index] @ (classifier.predict(x_out) != y_out) / len(held_out)
    low, high = (2 * np.clip(centred_interval(error, errors), 0, 0.5)).round(12).tolist()
    return low, high


def _count_compared(first: Matrix, second: Matrix) -> int:
    """Return the number of inputs of each dataset that are compared."""
    return min(len(first), len(second))


def _split_inputs(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Return inputs to fit to, and held-out ones, [2k, D] each, of alternating datasets."""
    size = _count_compared(first, second)
    x = np.stack([first[:size], second[:size]], axis=1)  # [size, 2, D]
    return x[::2].reshape(-1, x.shape[2]), x[1::2].reshape(-1, x.shape[2])


def _dataset_of(inputs: Matrix) -> NDArray[np.int64]:
    """Dataset, 0 or 1, of each of the inputs of `_split_inputs`."""
    return np.tile([0, 1], len(inputs) // 2)


def _draw_input_counts(inputs: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw bootstrap samples of the inputs of `_split_inputs`, [R, inputs], for each dataset separately."""
    samples = [draw_bootstrap_counts(inputs // 2, DATA_RESAMPLES, generator) for _ in range(2)]
    return np.stack(samples, axis=2).reshape(DATA_RESAMPLES, inputs)


def _fit(inputs: Matrix) -> Any:
    """Fit a classifier of the dataset of an input."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    components = min(COMPONENTS, *inputs.shape)
    classifier = make_pipeline(
        StandardScaler(), PCA(components, random_state=0), StandardScaler(), LogisticRegression(max_iter=200)
    )
    with _ignore_convergence():
        return classifier.fit(inputs, _dataset_of(inputs))


def _ignore_convergence() -> AbstractContextManager[object]:
    """Ignore that a fit stops at the limit of iterations; its error bounds the distance nevertheless."""
    from sklearn.exceptions import ConvergenceWarning

    return warnings.catch_warnings(action="ignore", category=ConvergenceWarning)
