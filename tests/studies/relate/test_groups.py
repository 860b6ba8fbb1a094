"""Groups of tasks, compared with exhaustive search."""

import numpy as np
import pytest

from mtlcli.studies.relate.groups import best_partition, cluster, iterate_partitions, suggest_groups
from mtlcli.studies.relate.relation import Relation
from tests.oracles import relations as oracle

BLOCKS = np.array([[1, 0.1, 0.9, 0.2], [0.1, 1, 0.0, 0.8], [0.9, 0.0, 1, 0.1], [0.2, 0.8, 0.1, 1]])
SEEDS = range(12)


def random_matrix(seed: int, symmetric: bool) -> np.ndarray:
    matrix = np.random.default_rng(seed).uniform(-1, 1, size=(2 + seed % 4, 2 + seed % 4))
    return (matrix + matrix.T) / 2 if symmetric else matrix


def sets(groups: list[list[int]]) -> set[frozenset[int]]:
    return set(map(frozenset, groups))


def test_suggested_groups_of_a_block_matrix() -> None:
    result = suggest_groups(Relation(list("abcd"), BLOCKS), threshold=0.5, networks=2)
    assert sets(result.clusters) == {frozenset([0, 2]), frozenset([1, 3])}
    assert result.best is not None
    assert sets(result.best) == {frozenset([0, 2]), frozenset([1, 3])}
    assert result.score == pytest.approx(2 * 0.9 + 2 * 0.8)
    assert result.merges == pytest.approx([0.9, 0.8, (0.1 + 0.2 + 0.0 + 0.1) / 4])
    plain = result.to_dict(list("abcd"), list("dcba"))
    assert plain["clustering"]["groups"] == [["d", "b"], ["c", "a"]]
    assert plain["partition"]["best"]["groups"] == [["d", "b"], ["c", "a"]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("networks", [1, 2, 3])
def test_best_partition_matches_exhaustive_search(seed: int, networks: int) -> None:
    influence = random_matrix(seed, symmetric=False)
    groups, score = best_partition(influence, networks)
    expected, best = oracle.best_partition(influence, networks)
    assert score == pytest.approx(best)
    assert sets(groups) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_clusters_match_average_linkage(seed: int) -> None:
    matrix = random_matrix(seed, symmetric=True)
    np.fill_diagonal(matrix, 1)
    for cut in (-0.5, 0.0, 0.3):
        assert sets(cluster(matrix, cut)[0]) == oracle.average_linkage(matrix, cut)


def test_threshold_is_inclusive() -> None:
    matrix = np.array([[1, 0.1], [0.1, 1]])
    assert len(cluster(matrix, 0.1)[0]) == 1
    assert len(cluster(matrix, 0.1001)[0]) == 2
    assert len(cluster(np.array([[1, 1.7], [1.7, 1]]), 0.5)[0]) == 1  # an affinity above 1


def test_harmful_tasks_are_separated() -> None:
    harm = -np.ones((3, 3))
    assert best_partition(harm, 3) == ([[0], [1], [2]], 0)
    assert sets(best_partition(np.zeros((3, 3)), 3)[0]) == {
        frozenset([0, 1, 2])
    }  # of equal scores, the fewest networks


def test_numbers_of_partitions() -> None:
    assert len(list(iterate_partitions(8, 8))) == 4140  # Bell number
    assert len(list(iterate_partitions(5, 2))) == 16  # 2⁴, including a single group
    assert suggest_groups(Relation(list("abcdefghi"), np.eye(9)), 0.5, 2).best is None
