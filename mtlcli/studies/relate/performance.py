"""Measure `performance`: correlation of the performance of single-task baselines."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.compare.statistics import MIN_VALUES
from mtlcli.studies.relate.intervals import describe_interval, percentile_interval
from mtlcli.studies.relate.relation import Matrix, Relation, name_matrix, symmetrize

MAX_ENUMERATED = 3125  # resamples of the seeds up to which all are used, 5^5; beyond, as many are drawn
ROUNDING = 1e-12  # relative to the norm of a vector; a smaller deviation from its mean is a rounding error


def performance_relation(tasks: Sequence[str], seeds: Sequence[int], skills: NDArray[np.float64]) -> Relation:
    """Compute the Pearson correlation of the performance of single-task baselines.

    A single number per task has no correlation, so the performance of task i is a vector: the skill of a linear probe
    on the frozen trunk of its baseline for every task j and every seed s (see `linear_probe.skill`). The interval is
    between the 2.5 and 97.5 percentiles over bootstrap samples of the seeds (all S^S of them for up to 5 seeds); with
    fewer than three seeds it is undefined.

    Args:
        tasks: names of the tasks, [T].
        seeds: seeds of the baselines, [S].
        skills: skill of baseline i for task j with seed s, [T, T, S]; NaN if the skill of task j is undefined.

    Returns:
        The relation; `n` in `numbers` is the number of entries of a vector.
    """
    defined: NDArray[np.bool_] = np.logical_not(np.isnan(skills).any(axis=0))
    samples = _seed_samples(len(seeds)) if len(seeds) >= MIN_VALUES else []
    resampled = np.empty((len(samples), len(tasks), len(tasks)))
    for index, sample in enumerate(samples):
        resampled[index] = pearson(_vectors(skills, defined, sample))
    matrix = pearson(_vectors(skills, defined, range(len(seeds))))
    by_seed = {
        task: {str(seed): dict(zip(tasks, skills[i, :, s].tolist(), strict=True)) for s, seed in enumerate(seeds)}
        for i, task in enumerate(tasks)
    }
    numbers = {
        "correlation": name_matrix(tasks, matrix),
        **describe_interval(tasks, percentile_interval(resampled), f"bootstrap over {len(seeds)} seeds"),
        "n": int(defined.sum()),
        "seeds": list(seeds),
        "skills": by_seed,
    }
    return Relation(list(tasks), matrix, numbers)


def pearson(vectors: Matrix) -> Matrix:
    """Compute the Pearson correlation of the rows of a matrix.

    Args:
        vectors: [T, n].

    Returns:
        [T, T], exactly 1 for equal rows; NaN if a row is constant.
    """
    centred = vectors - vectors.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    norms[norms <= ROUNDING * np.linalg.norm(vectors, axis=1)] = np.nan
    units = centred / norms[:, None]
    return symmetrize(np.clip((units[:, None] * units).sum(2), -1, 1)).round(15)


def _vectors(skills: NDArray[np.float64], defined: NDArray[np.bool_], seeds: Sequence[int]) -> Matrix:
    """Return the performance of the tasks with these seeds, [T, n]."""
    return np.concatenate([skills[:, defined[:, seed], seed] for seed in seeds], axis=1)


def _seed_samples(seeds: int) -> list[tuple[int, ...]]:
    """Bootstrap samples of the indices of the seeds."""
    if seeds**seeds <= MAX_ENUMERATED:
        return list(itertools.product(range(seeds), repeat=seeds))
    draws = np.random.default_rng(0).integers(seeds, size=(MAX_ENUMERATED, seeds))
    return [tuple(draw) for draw in draws.tolist()]
