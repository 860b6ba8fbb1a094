"""How alike the inputs of two datasets are: whether a classifier can tell them apart."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.compare.statistics import FEWEST
from mtlcli.studies.relate.intervals import DATA_RESAMPLES, bootstrap_counts, centred_percentiles
from mtlcli.studies.relate.relation import Matrix

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
    weights, judged_weights = _counts(len(fitted), generator), _counts(len(judged), generator)
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


def _counts(inputs: int, generator: np.random.Generator) -> NDArray[np.int64]:
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
