"""`gradient` and `affinity`: what the tasks' gradients have to do with one another, along a joint run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.relate.gradient_probe import Points
from mtlcli.studies.relate.intervals import percentiles, resampled_means, with_interval
from mtlcli.studies.relate.relation import Matrix, Relation, named, symmetric


def gradient_relation(tasks: Sequence[str], points: Points) -> Relation:
    """The mean cosine of the tasks' gradients by the shared parameters: 1 agreement, −1 conflict.

    A pair's mean is over the points where both tasks had labels and a gradient. Its interval is the bootstrap's over
    these points: it says how much the steps of this run differ, not what other seeds would give.
    """
    cosines = _cosines(points.gramians)
    mean, spread, counts = _mean(cosines)
    resampled = resampled_means(cosines).clip(-1, 1).round(12)
    numbers = {
        "cosine": named(tasks, symmetric(mean)),
        **with_interval(tasks, percentiles(resampled), _sample(points)),
        "standard_deviation": named(tasks, spread),
        "points": named(tasks, counts),
    }
    return Relation(list(tasks), symmetric(mean), numbers)


def affinity_relation(tasks: Sequence[str], points: Points) -> Relation:
    """The inter-task affinity of TAG: how much a step along one task's gradient lowers another task's loss,

        Z_{i→j} = 1 − L_j(θ − η g_i, φ_j) / L_j(θ, φ_j),

    with both losses on the same batch, a plain gradient step of the shared parameters θ alone, and η the optimizer's
    learning rate at that step; the mean over the points. Z is asymmetric, and as small as η: `raw` is Z itself.
    Its scale is taken out by what a step does for its own task, so that a copy of a task has 1:

        R_ij = (Z_{i→j} + Z_{j→i}) / (2 √(Z_{i→i} Z_{j→j})),    influence of i on j = Z_{i→j} / Z_{j→j}.

    Undefined where a step along a task's own gradient doesn't lower its loss. The interval of R is the bootstrap's over
    the points.

    Source: Fifty et al., "Efficiently identifying task groupings for multi-task learning", 2021, equation 2. But the
    paper compares Z as it is, so that the tasks whose losses move most decide.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        affinities = 1 - points.after / points.losses[:, None, :]
    affinities[~np.isfinite(affinities)] = np.nan
    mean, spread, counts = _mean(affinities)
    matrix, scale = _scaled(mean)
    resampled = np.stack([_scaled(part)[0] for part in resampled_means(affinities)])
    numbers = {
        **with_interval(tasks, percentiles(resampled), _sample(points)),
        "affinity": named(tasks, mean),
        "symmetrized": named(tasks, (mean + mean.T) / 2),
        "relation": named(tasks, matrix),
        "standard_deviation": named(tasks, spread),
        "points": named(tasks, counts),
    }
    return Relation(list(tasks), matrix, numbers, influence=mean / scale**2, raw=mean)


def _scaled(mean: Matrix) -> tuple[Matrix, Matrix]:
    """R [T, T] of a mean affinity, and √Z_{i→i} [T]."""
    own = mean.diagonal()
    scale = np.sqrt(np.where(own > 0, own, np.nan))
    return symmetric((mean + mean.T) / 2 / scale[:, None] / scale), scale


def _sample(points: Points) -> str:
    return f"bootstrap over {len(points.losses)} steps of one run"


def _cosines(gramians: Matrix) -> Matrix:
    """[K, T, T]; NaN for a gradient of 0."""
    norms = np.sqrt(np.diagonal(gramians, axis1=1, axis2=2))
    norms = np.where(norms > 0, norms, np.nan)
    cosines: Matrix = np.clip(gramians / norms[:, :, None] / norms[:, None, :], -1, 1).round(12)
    return cosines


def _mean(values: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """(mean, standard deviation, number) over the first dimension of what isn't NaN; NaN where nothing is."""
    known: NDArray[np.bool_] = ~np.isnan(values)
    counts = known.sum(0)
    some = np.where(counts > 0, counts, np.nan)
    mean = np.where(known, values, 0).sum(0) / some
    spread = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(0) / some)
    return mean, spread, counts.astype(np.float64)
