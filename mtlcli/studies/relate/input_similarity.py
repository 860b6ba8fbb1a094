"""How alike the inputs of two datasets are: whether a classifier can tell them apart."""

from __future__ import annotations

import warnings

import numpy as np

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
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    size = min(len(first), len(second))
    x = np.stack([first[:size], second[:size]], axis=1)  # [size, 2, D]
    fitted, judged = (part.reshape(-1, x.shape[2]) for part in (x[::2], x[1::2]))
    if not np.ptp(fitted, axis=0).any():  # all the same: nothing to tell them apart by
        return 1.0
    which = np.tile([0, 1], len(fitted) // 2)
    components = min(COMPONENTS, *fitted.shape)
    classifier = make_pipeline(
        StandardScaler(), PCA(components, random_state=0), StandardScaler(), LogisticRegression(max_iter=200)
    )
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # a bound on the distance all the same
        classifier.fit(fitted, which)
    error = float(np.mean(classifier.predict(judged) != np.tile([0, 1], len(judged) // 2)))
    return 2 * min(error, 0.5)
