"""Groups of tasks that a matrix of relations suggests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtlcli.studies.relate.relation import Matrix, Relation

Groups = list[list[int]]
MOST_TASKS = 8  # that all partitions are gone through for: 4,140


@dataclass(frozen=True)
class Suggestion:
    """clusters: by agglomerative clustering, cut at a similarity. best: by budget of networks, None for many tasks.

    merges: the similarity at which two clusters became one, from the most similar on. score: of the best partition.
    """

    cut: float
    merges: list[float]
    clusters: Groups
    networks: int
    best: Groups | None
    score: float | None

    def plain(self, tasks: Sequence[str], order: Sequence[str]) -> dict[str, Any]:
        """As JSON has it. tasks: names of the indices. order: that groups, and the tasks in them, are to stand in."""
        best = None
        if self.best is not None:
            best = {"groups": _named(self.best, tasks, order), "score": self.score}
        clusters = _named(self.clusters, tasks, order)
        return {
            "clustering": {"linkage": "average", "cut": self.cut, "merges": self.merges, "groups": clusters},
            "partition": {"networks": self.networks, "best": best},
        }


def suggest(relation: Relation, cut: float, networks: int) -> Suggestion:
    """The groups for a relation of T tasks, as indices. Where it is undefined, tasks count as unrelated.

    cut: the average similarity from which on two groups are one. networks: the most groups of the best partition.
    """
    matrix = relation.defined
    clusters, merges = cluster(matrix, cut)
    influence = matrix if relation.influence is None else np.nan_to_num(relation.influence)
    best = best_partition(influence, networks) if len(matrix) <= MOST_TASKS else (None, None)
    return Suggestion(cut, merges, clusters, networks, *best)


def cluster(matrix: Matrix, cut: float) -> tuple[Groups, list[float]]:
    """Agglomerative clustering with average linkage: the two most similar groups are joined, as long as the mean
    similarity between their members is at least `cut`. Returns the groups, and the similarity of every join there
    could be.
    """
    from sklearn.cluster import AgglomerativeClustering

    highest = max(1.0, float(matrix.max()))  # an affinity may be more than 1
    found = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=highest - cut + 1e-12
    ).fit(highest - matrix)
    groups: dict[int, list[int]] = {}
    for index, number in enumerate(found.labels_.tolist()):
        groups.setdefault(number, []).append(index)
    return list(groups.values()), (highest - found.distances_).tolist()


def best_partition(influence: Matrix, networks: int) -> tuple[Groups, float]:
    """Of all ways to divide the tasks among at most so many networks, the one with the highest score.

    The score is summed over the tasks: what the others in a task's network do for it, the mean of `influence`[other,
    task]. A task alone has nobody to gain from, or to suffer from: 0. Of equal ones, that of the fewest networks.

    Source: Standley et al., "Which tasks should be learned together in multi-task learning?", 2020, which goes by
    measured losses; with affinities, Fifty et al. 2021, whose networks may overlap, and never leave a task alone.
    """
    found = ((score(groups, influence), groups) for groups in partitions(len(influence), networks))
    value, best = max(found, key=lambda one: (round(one[0], 12), -len(one[1])))
    return best, value


def score(groups: Groups, influence: Matrix) -> float:
    """The sum over the tasks of the mean influence that the others in their group have on them."""
    total = 0.0
    for group in groups:
        if len(group) > 1:
            inside = influence[np.ix_(group, group)]
            total += float(inside.sum() - inside.trace()) / (len(group) - 1)
    return total


def partitions(tasks: int, networks: int) -> Iterator[Groups]:
    """All ways to divide 0 … tasks − 1 into at most so many groups."""
    if tasks == 0:
        yield []
        return
    for groups in partitions(tasks - 1, networks):
        for index in range(len(groups)):
            yield [[*group, tasks - 1] if index == number else list(group) for number, group in enumerate(groups)]
        if len(groups) < networks:
            yield [*map(list, groups), [tasks - 1]]


def _named(groups: Groups, tasks: Sequence[str], order: Sequence[str]) -> list[list[str]]:
    places = sorted(sorted(order.index(tasks[index]) for index in group) for group in groups)
    return [[order[place] for place in group] for group in places]
