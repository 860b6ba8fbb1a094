"""`performance`: the correlation of the tasks' baseline performance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.compare.statistics import FEWEST
from mtlcli.studies.relate.intervals import percentiles, with_interval
from mtlcli.studies.relate.relation import Matrix, Relation, named, symmetric

ENUMERATED = 3125  # resamples of the seeds that are all gone through (5 seeds have so many); of more, as many are drawn
ROUNDING = 1e-12  # of a vector's size: what is left of a constant one


def performance_relation(tasks: Sequence[str], seeds: Sequence[int], skills: NDArray[np.float64]) -> Relation:
    """The seed document's relation: the Pearson correlation of the tasks' baseline performance.

    One number a task has no correlation. So the performance of task i's baseline is a vector: how well a linear probe
    on its frozen trunk does at every task j, with every seed s (see `skill`).

    skills: [T, T, S], of baseline i at task j with seed s; NaN where task j has no skill. n = entries per vector.
    The interval of a coefficient is between the 2.5 and 97.5 percentiles of what it is when the seeds are drawn anew,
    with replacement (the bootstrap over seeds; all S^S draws where they are few). Fewer than three have no interval.
    """
    known: NDArray[np.bool_] = np.logical_not(np.isnan(skills).any(axis=0))
    draws = _resamples(len(seeds)) if len(seeds) >= FEWEST else []
    resampled = np.empty((len(draws), len(tasks), len(tasks)))
    for number, chosen in enumerate(draws):
        resampled[number] = pearson(_vectors(skills, known, chosen))
    matrix = pearson(_vectors(skills, known, range(len(seeds))))
    by_seed = {
        task: {str(seed): dict(zip(tasks, skills[i, :, s].tolist(), strict=True)) for s, seed in enumerate(seeds)}
        for i, task in enumerate(tasks)
    }
    numbers = {
        "correlation": named(tasks, matrix),
        **with_interval(tasks, percentiles(resampled), f"bootstrap over {len(seeds)} seeds"),
        "n": int(known.sum()),
        "seeds": list(seeds),
        "skills": by_seed,
    }
    return Relation(list(tasks), matrix, numbers)


def pearson(vectors: Matrix) -> Matrix:
    """[T, T] of the rows of [T, n]; NaN where a row is constant. Exactly 1 for equal rows."""
    centred = vectors - vectors.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    norms[norms <= ROUNDING * np.linalg.norm(vectors, axis=1)] = np.nan
    units = centred / norms[:, None]
    return symmetric(np.clip((units[:, None] * units).sum(2), -1, 1)).round(15)


def _vectors(skills: NDArray[np.float64], known: NDArray[np.bool_], chosen: Sequence[int]) -> Matrix:
    """[T, n], with these seeds."""
    return np.concatenate([skills[:, known[:, seed], seed] for seed in chosen], axis=1)


def _resamples(seeds: int) -> list[tuple[int, ...]]:
    """Draws of as many seeds, with replacement."""
    if seeds**seeds <= ENUMERATED:
        return list(itertools.product(range(seeds), repeat=seeds))
    draws = np.random.default_rng(0).integers(seeds, size=(ENUMERATED, seeds))
    return [tuple(draw) for draw in draws.tolist()]
