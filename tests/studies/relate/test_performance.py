"""Correlation of baseline performance, and skill of linear probes."""

import itertools
import math

import numpy as np
import pytest

from mtlcli.studies.relate.linear_probe import skill
from mtlcli.studies.relate.performance import pearson, performance_relation
from tests.oracles import relations as oracle

SKILLS = np.random.default_rng(0).uniform(size=(3, 3, 3))
SKILLS[2] = SKILLS[0]  # a copy of the first
TASKS = ["a", "b", "copy_of_a"]


def test_coefficients_match_pearson() -> None:
    result = performance_relation(TASKS, [0, 1, 2], SKILLS)
    for i, j in itertools.combinations(range(3), 2):
        expected = oracle.pearson(SKILLS[i].flatten(), SKILLS[j].flatten())
        assert result.matrix[i, j] == result.matrix[j, i] == pytest.approx(expected, abs=1e-14)
    assert result.matrix[0, 2] == 1  # exactly
    assert result.matrix.diagonal().tolist() == [1, 1, 1]
    assert result.numbers["n"] == 9
    assert result.numbers["skills"]["b"]["2"]["a"] == SKILLS[1, 0, 2]
    assert pearson(np.array([[1.0, 2, 3], [-1, -2, -3]]))[0, 1] == -1


def test_interval_enumerates_all_samples_of_the_seeds() -> None:
    result = performance_relation(TASKS, [0, 1, 2], SKILLS).numbers["interval"]
    draws = [list(draw) for draw in itertools.product(range(3), repeat=3)]
    drawn = [oracle.pearson(SKILLS[0][:, draw].flatten(), SKILLS[1][:, draw].flatten()) for draw in draws]
    assert result["a"]["b"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
    assert result["a"]["b"] == result["b"]["a"]
    assert result["a"]["copy_of_a"] == [1, 1]


def test_interval_for_few_and_for_many_seeds() -> None:
    for few in (1, 2):
        numbers = performance_relation(TASKS, list(range(few)), SKILLS[:, :, :few]).numbers
        assert all(math.isnan(bound) for bound in numbers["interval"]["a"]["b"])
    many = np.random.default_rng(1).uniform(size=(2, 2, 8))
    result = performance_relation(["a", "b"], list(range(8)), many)
    low, high = result.numbers["interval"]["a"]["b"]
    assert low < result.matrix[0, 1] < high


def test_constant_and_missing_skills_are_undefined() -> None:
    skills = SKILLS.copy()
    skills[1] = 0.1  # equal skill for all tasks
    skills[:, 2, 0] = np.nan  # a task that can't be probed with one seed
    result = performance_relation(TASKS, [0, 1, 2], skills)
    assert result.numbers["n"] == 8
    assert np.isnan(result.matrix[0, 1])
    assert result.undefined_pairs() == ["a–b", "b–copy_of_a"]
    assert result.filled[0, 1] == 0
    assert result.matrix[0, 2] == 1


RANDOM = np.random.default_rng(2)
X, X_OUT = RANDOM.normal(size=(400, 5)), RANDOM.normal(size=(300, 5))


def test_skill_is_1_if_perfect_and_0_if_constant() -> None:
    real = skill("real", (X, X[:, 0] * 3 + 2), (X_OUT, X_OUT[:, 0] * 3 + 2))
    assert real == pytest.approx(1, abs=1e-4)
    labels, labels_out = (X[:, 1] > 0).astype(float), (X_OUT[:, 1] > 0).astype(float)
    binary = skill("binary", (X, labels), (X_OUT, labels_out))
    assert binary > 0.85
    assert (
        skill("classes", (X, 4 * labels + 2), (X_OUT, 4 * labels_out + 2)) == binary
    )  # the class indices do not matter
    assert skill("real", (X * 0, X[:, 0]), (X_OUT * 0, X_OUT[:, 0])) == pytest.approx(0, abs=0.02)
    rare = (RANDOM.uniform(size=400) < 0.3).astype(float)
    assert skill("binary", (X * 0, rare), (X_OUT * 0, rare[:300])) == pytest.approx(0, abs=1e-12)
    assert abs(skill("binary", (X, rare), (X_OUT, rare[:300]))) < 0.1
    both = np.stack([labels, rare], 1), np.stack([labels_out, rare[:300]], 1)
    alone = skill("binary", (X, rare), (X_OUT, rare[:300]))
    assert skill("multilabel", (X, both[0]), (X_OUT, both[1])) == pytest.approx((binary + alone) / 2)


def test_skill_is_relative_to_the_most_frequent_class() -> None:
    x = np.array([[-1.0], [-2], [1], [2]])
    y_out = np.array([0.0, 0, 0, 1])  # 3/4 of one class, one error: (3/4 − 3/4) / (1/4)
    x_out = np.array([[-1.0], [-2], [2], [1]])
    assert skill("binary", (x, np.array([0.0, 0, 1, 1])), (x_out, y_out)) == pytest.approx(0)


def test_missing_labels_are_left_out() -> None:
    y, y_out = X[:, 0].copy(), X_OUT[:, 0].copy()
    y[::2], y_out[::3] = np.nan, np.nan
    assert skill("real", (X, y), (X_OUT, y_out)) == pytest.approx(1, abs=1e-4)
    assert math.isnan(skill("real", (X, y), (X_OUT, y_out * np.nan)))
    assert math.isnan(skill("binary", (X, np.ones(400)), (X_OUT, np.ones(300))))
    assert math.isnan(skill("multilabel", (X, np.ones((400, 2))), (X_OUT, np.ones((300, 2)))))
