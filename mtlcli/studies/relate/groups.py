"""Groups of tasks suggested by a relation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtlcli.studies.relate.relation import Matrix, Relation

Groups = list[list[int]]
MAX_TASKS = 8  # for which all partitions are searched: 4,140


@dataclass(frozen=True)
class Suggestion:
    """Suggested groups of tasks, as indices.

    Attributes:
        threshold: mean similarity down to which clusters are merged.
        merges: similarity of each merge of two clusters, from the most similar ones on, also below the threshold.
        clusters: groups by agglomerative clustering.
        networks: largest number of networks of the best partition.
        best: the best partition; None for more than `MAX_TASKS` tasks.
        score: its score.
    """

    threshold: float
    merges: list[float]
    clusters: Groups
    networks: int
    best: Groups | None
    score: float | None

    def to_dict(self, tasks: Sequence[str], order: Sequence[str]) -> dict[str, Any]:
        """Convert to the content of `groups.json`.

        Args:
            tasks: names of the indices.
            order: order of the groups, and of the tasks in them.

        Returns:
            `clustering` and `partition`, with names in the place of indices.
        """
        best = None
        if self.best is not None:
            best = {"groups": _name_groups(self.best, tasks, order), "score": self.score}
        clusters = _name_groups(self.clusters, tasks, order)
        return {
            "clustering": {"linkage": "average", "cut": self.threshold, "merges": self.merges, "groups": clusters},
            "partition": {"networks": self.networks, "best": best},
        }


def suggest_groups(relation: Relation, threshold: float, networks: int) -> Suggestion:
    """Suggest groups of tasks.

    Args:
        relation: the relation; undefined values count as unrelated.
        threshold: mean similarity down to which clusters are merged.
        networks: largest number of groups of the best partition.

    Returns:
        The groups.
    """
    matrix = relation.filled
    clusters, merges = cluster(matrix, threshold)
    influence = matrix if relation.influence is None else np.nan_to_num(relation.influence)
    best = best_partition(influence, networks) if len(matrix) <= MAX_TASKS else (None, None)
    return Suggestion(threshold, merges, clusters, networks, *best)


def cluster(matrix: Matrix, threshold: float) -> tuple[Groups, list[float]]:
    """Cluster tasks by agglomerative clustering with average linkage.

    The two most similar clusters are merged as long as the mean similarity between their members is at least the
    threshold.

    Args:
        matrix: similarities, [T, T].
        threshold: the smallest similarity of a merge.

    Returns:
        The clusters, and the similarity of every possible merge.
    """
    from sklearn.cluster import AgglomerativeClustering

    highest = max(1.0, float(matrix.max()))  # an affinity can exceed 1
    fitted = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=highest - threshold + 1e-12
    ).fit(highest - matrix)
    clusters: dict[int, list[int]] = {}
    for index, label in enumerate(fitted.labels_.tolist()):
        clusters.setdefault(label, []).append(index)
    return list(clusters.values()), (highest - fitted.distances_).tolist()


def best_partition(influence: Matrix, networks: int) -> tuple[Groups, float]:
    """Find the partition of the tasks into networks with the highest score, by exhaustive search.

    The score is the sum over the tasks of the mean influence of the other tasks in the same network; a task on its own
    scores 0. Of equal partitions, the one with the fewest networks is selected.

    Args:
        influence: effect of task i on task j, [T, T].
        networks: largest number of networks.

    Returns:
        The partition and its score.

    References:
        T. Standley, A. Zamir, D. Chen, L. Guibas, J. Malik, S. Savarese: "Which Tasks Should Be Learned Together in
        Multi-task Learning?", ICML 2020, arXiv:1905.07553; it uses the losses of trained networks. C. Fifty et al.:
        "Efficiently Identifying Task Groupings for Multi-Task Learning", NeurIPS 2021, arXiv:2109.04617, uses
        affinities, as here, but allows overlapping networks and leaves no task on its own.
    """
    scored = ((partition_score(groups, influence), groups) for groups in iterate_partitions(len(influence), networks))
    score, best = max(scored, key=lambda pair: (round(pair[0], 12), -len(pair[1])))
    return best, score


def partition_score(groups: Groups, influence: Matrix) -> float:
    """Compute the sum over the tasks of the mean influence of the others in their group.

    Args:
        groups: the partition, as indices.
        influence: effect of task i on task j, [T, T].

    Returns:
        The score.
    """
    score = 0.0
    for group in groups:
        if len(group) > 1:
            inside = influence[np.ix_(group, group)]
            score += float(inside.sum() - inside.trace()) / (len(group) - 1)
    return score


def iterate_partitions(tasks: int, networks: int) -> Iterator[Groups]:
    """Iterate over all partitions of the tasks.

    Args:
        tasks: number of tasks.
        networks: largest number of groups.

    Yields:
        A partition of 0 … tasks − 1.
    """
    if tasks == 0:
        yield []
        return
    for groups in iterate_partitions(tasks - 1, networks):
        for target in range(len(groups)):
            yield [[*group, tasks - 1] if target == index else list(group) for index, group in enumerate(groups)]
        if len(groups) < networks:
            yield [*map(list, groups), [tasks - 1]]


def _name_groups(groups: Groups, tasks: Sequence[str], order: Sequence[str]) -> list[list[str]]:
    positions = sorted(sorted(order.index(tasks[index]) for index in group) for group in groups)
    return [[order[position] for position in group] for group in positions]
