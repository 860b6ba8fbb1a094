"""The correlation of baselines' performance, and the skill it is made of."""

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


def test_coefficients_are_those_of_the_equation() -> None:
    found = performance_relation(TASKS, [0, 1, 2], SKILLS)
    for i, j in itertools.combinations(range(3), 2):
        expected = oracle.pearson(SKILLS[i].flatten(), SKILLS[j].flatten())
        assert found.matrix[i, j] == found.matrix[j, i] == pytest.approx(expected, abs=1e-14)
    assert found.matrix[0, 2] == 1  # exactly
    assert found.matrix.diagonal().tolist() == [1, 1, 1]
    assert found.numbers["n"] == 9
    assert found.numbers["skills"]["b"]["2"]["a"] == SKILLS[1, 0, 2]
    assert pearson(np.array([[1.0, 2, 3], [-1, -2, -3]]))[0, 1] == -1


def test_the_interval_is_of_all_draws_of_the_seeds() -> None:
    found = performance_relation(TASKS, [0, 1, 2], SKILLS).numbers["interval"]
    draws = [list(draw) for draw in itertools.product(range(3), repeat=3)]
    drawn = [oracle.pearson(SKILLS[0][:, draw].flatten(), SKILLS[1][:, draw].flatten()) for draw in draws]
    assert found["a"]["b"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
    assert found["a"]["b"] == found["b"]["a"]
    assert found["a"]["copy_of_a"] == [1, 1]


def test_fewer_than_three_seeds_have_no_interval_and_many_are_drawn() -> None:
    for few in (1, 2):
        numbers = performance_relation(TASKS, list(range(few)), SKILLS[:, :, :few]).numbers
        assert all(math.isnan(bound) for bound in numbers["interval"]["a"]["b"])
    many = np.random.default_rng(1).uniform(size=(2, 2, 8))
    found = performance_relation(["a", "b"], list(range(8)), many)
    low, high = found.numbers["interval"]["a"]["b"]
    assert low < found.matrix[0, 1] < high


def test_what_has_no_value_is_said_to_have_none() -> None:
    skills = SKILLS.copy()
    skills[1] = 0.1  # does equally at everything
    skills[:, 2, 0] = np.nan  # a task that can't be probed with one seed
    found = performance_relation(TASKS, [0, 1, 2], skills)
    assert found.numbers["n"] == 8
    assert np.isnan(found.matrix[0, 1])
    assert found.undefined_pairs() == ["a–b", "b–copy_of_a"]
    assert found.filled[0, 1] == 0
    assert found.matrix[0, 2] == 1


RANDOM = np.random.default_rng(2)
X, X_OUT = RANDOM.normal(size=(400, 5)), RANDOM.normal(size=(300, 5))


def test_skill_is_1_where_all_is_right_and_0_for_the_best_constant() -> None:
    real = skill("real", (X, X[:, 0] * 3 + 2), (X_OUT, X_OUT[:, 0] * 3 + 2))
    assert real == pytest.approx(1, abs=1e-4)
    labels, labels_out = (X[:, 1] > 0).astype(float), (X_OUT[:, 1] > 0).astype(float)
    binary = skill("binary", (X, labels), (X_OUT, labels_out))
    assert binary > 0.85
    assert skill("classes", (X, 4 * labels + 2), (X_OUT, 4 * labels_out + 2)) == binary  # whatever they are called
    assert skill("real", (X * 0, X[:, 0]), (X_OUT * 0, X_OUT[:, 0])) == pytest.approx(0, abs=0.02)
    rare = (RANDOM.uniform(size=400) < 0.3).astype(float)
    assert skill("binary", (X * 0, rare), (X_OUT * 0, rare[:300])) == pytest.approx(0, abs=1e-12)
    assert abs(skill("binary", (X, rare), (X_OUT, rare[:300]))) < 0.1
    both = np.stack([labels, rare], 1), np.stack([labels_out, rare[:300]], 1)
    alone = skill("binary", (X, rare), (X_OUT, rare[:300]))
    assert skill("multilabel", (X, both[0]), (X_OUT, both[1])) == pytest.approx((binary + alone) / 2)


def test_accuracy_is_measured_against_the_most_frequent_class() -> None:
    x = np.array([[-1.0], [-2], [1], [2]])
    y_out = np.array([0.0, 0, 0, 1])  # 3/4 of one class; one of them is mistaken: (3/4 − 3/4) / (1/4)
    x_out = np.array([[-1.0], [-2], [2], [1]])
    assert skill("binary", (x, np.array([0.0, 0, 1, 1])), (x_out, y_out)) == pytest.approx(0)


def test_missing_labels_are_left_out() -> None:
    y, y_out = X[:, 0].copy(), X_OUT[:, 0].copy()
    y[::2], y_out[::3] = np.nan, np.nan
    assert skill("real", (X, y), (X_OUT, y_out)) == pytest.approx(1, abs=1e-4)
    assert math.isnan(skill("real", (X, y), (X_OUT, y_out * np.nan)))
    assert math.isnan(skill("binary", (X, np.ones(400)), (X_OUT, np.ones(300))))
    assert math.isnan(skill("multilabel", (X, np.ones((400, 2))), (X_OUT, np.ones((300, 2)))))
