"""Measures `gradient` and `affinity`: cosine similarity and affinity of the task gradients along a joint run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.relate.gradient_probe import ProbedSteps
from mtlcli.studies.relate.intervals import describe_interval, percentile_interval, resample_means
from mtlcli.studies.relate.relation import Matrix, Relation, name_matrix, symmetrize


def gradient_relation(tasks: Sequence[str], probed: ProbedSteps) -> Relation:
    """Compute the mean cosine similarity of the task gradients with respect to the shared parameters.

    The mean of a pair is over the steps at which both tasks had labels and a gradient. Its interval is a bootstrap over
    these steps: it shows the variation along this run, and does not cover the variation between seeds.

    Args:
        tasks: names of the tasks, [T].
        probed: the measured steps of the joint run.

    Returns:
        The relation; 1 is agreement, −1 conflict.
    """
    cosines = _cosines(probed.gramians)
    mean, deviation, counts = _moments(cosines)
    resampled = resample_means(cosines).clip(-1, 1).round(12)
    numbers = {
        "cosine": name_matrix(tasks, symmetrize(mean)),
        **describe_interval(tasks, percentile_interval(resampled), _describe_resamples(probed)),
        "standard_deviation": name_matrix(tasks, deviation),
        "points": name_matrix(tasks, counts),
    }
    return Relation(list(tasks), symmetrize(mean), numbers)


def affinity_relation(tasks: Sequence[str], probed: ProbedSteps) -> Relation:
    """Compute the inter-task affinity of TAG: the effect of a gradient step for one task on the loss of another.

        Z_{i→j} = 1 − L_j(θ − η g_i, φ_j) / L_j(θ, φ_j),

    averaged over the steps. Both losses are on the same batch; the step is a plain gradient step of the shared
    parameters θ alone; η is the optimizer's learning rate at that step. Z is asymmetric and proportional to η. The
    relation contains it relative to the effect of a step on its own task, so that a copy of a task has 1:

        R_ij = (Z_{i→j} + Z_{j→i}) / (2 √(Z_{i→i} Z_{j→j})),    influence of i on j = Z_{i→j} / Z_{j→j}.

    It is undefined if a step along a task's own gradient does not reduce its loss. The interval of R is a bootstrap
    over the steps.

    Args:
        tasks: names of the tasks, [T].
        probed: the measured steps of the joint run.

    Returns:
        The relation, with Z as `raw`.

    References:
        C. Fifty, E. Amid, Z. Zhao, T. Yu, R. Anil, C. Finn: "Efficiently Identifying Task Groupings for Multi-Task
        Learning", NeurIPS 2021, arXiv:2109.04617, equation 2. The paper uses Z without normalization, so that tasks
        whose losses change most dominate.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        affinities = 1 - probed.losses_after / probed.losses[:, None, :]
    affinities[~np.isfinite(affinities)] = np.nan
    mean, deviation, counts = _moments(affinities)
    matrix, scale = _normalize(mean)
    resampled = np.stack([_normalize(resample)[0] for resample in resample_means(affinities)])
    numbers = {
        **describe_interval(tasks, percentile_interval(resampled), _describe_resamples(probed)),
        "affinity": name_matrix(tasks, mean),
        "symmetrized": name_matrix(tasks, (mean + mean.T) / 2),
        "relation": name_matrix(tasks, matrix),
        "standard_deviation": name_matrix(tasks, deviation),
        "points": name_matrix(tasks, counts),
    }
    return Relation(list(tasks), matrix, numbers, influence=mean / scale**2, raw=mean)


def _normalize(mean: Matrix) -> tuple[Matrix, Matrix]:
    """Return R [T, T] of a mean affinity, and √Z_{i→i} [T]."""
    diagonal = mean.diagonal()
    scale = np.sqrt(np.where(diagonal > 0, diagonal, np.nan))
    return symmetrize((mean + mean.T) / 2 / scale[:, None] / scale), scale


def _describe_resamples(probed: ProbedSteps) -> str:
    return f"bootstrap over {len(probed.losses)} steps of one run"


def _cosines(gramians: Matrix) -> Matrix:
    """Cosine similarities [K, T, T]; NaN for a gradient of 0."""
    norms = np.sqrt(np.diagonal(gramians, axis1=1, axis2=2))
    norms = np.where(norms > 0, norms, np.nan)
    cosines: Matrix = np.clip(gramians / norms[:, :, None] / norms[:, None, :], -1, 1).round(12)
    return cosines


def _moments(values: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Mean, standard deviation and number of the defined values over the first dimension; NaN without any."""
    defined: NDArray[np.bool_] = ~np.isnan(values)
    counts = defined.sum(0)
    divisor = np.where(counts > 0, counts, np.nan)
    mean = np.where(defined, values, 0).sum(0) / divisor
    deviation = np.sqrt(np.where(defined, (values - mean) ** 2, 0).sum(0) / divisor)
    return mean, deviation, counts.astype(np.float64)
