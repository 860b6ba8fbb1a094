"""Similarity of inputs and of labels."""

import math

import numpy as np
import pytest

from mtlcli.studies.relate.input_similarity import input_similarity
from mtlcli.studies.relate.label_similarity import label_similarity

RANDOM = np.random.default_rng(0)
N = 4000
NORMAL = RANDOM.normal(size=N)
COIN = (RANDOM.uniform(size=N) > 0.5).astype(float)
TEN = RANDOM.integers(10, size=N).astype(float)


def test_numbers_are_compared_by_their_correlation() -> None:
    mixed = NORMAL + 2 * RANDOM.normal(size=N)
    assert label_similarity(("real", NORMAL), ("real", 3 - 2 * NORMAL)) == pytest.approx(1)
    assert label_similarity(("real", NORMAL), ("real", mixed)) == pytest.approx(abs(np.corrcoef(NORMAL, mixed)[0, 1]))
    assert label_similarity(("binary", COIN), ("binary", 1 - COIN)) == pytest.approx(1)
    assert label_similarity(("binary", COIN), ("real", NORMAL)) < 0.05


def test_classes_are_compared_by_their_mutual_information() -> None:
    assert label_similarity(("classes", TEN), ("classes", (TEN * 7) % 10)) == 1  # other names for the same
    assert label_similarity(("classes", TEN), ("classes", RANDOM.permutation(TEN))) < 0.01
    hundred = RANDOM.integers(100, size=(2, N)).astype(float)  # unadjusted it would be 0.25
    assert label_similarity(("classes", hundred[0]), ("classes", hundred[1])) < 0.01
    # of a class and its parity: the parity's entropy, log 2, over the mean of log 2 and log 10
    expected = math.log(2) / ((math.log(2) + math.log(10)) / 2)
    assert label_similarity(("classes", TEN), ("binary", TEN % 2)) == pytest.approx(expected, abs=5e-3)
    # of a number and its decile
    ranks = RANDOM.permutation(N).astype(float)
    assert label_similarity(("real", ranks), ("classes", ranks // (N // 10))) == pytest.approx(1)
    assert label_similarity(("real", NORMAL), ("classes", TEN)) < 0.01


def test_several_labels_are_the_combination_they_are() -> None:
    bits = np.stack([TEN // 8, TEN // 4 % 2, TEN // 2 % 2, TEN % 2], 1)
    assert label_similarity(("multilabel", bits), ("classes", TEN)) == 1
    assert label_similarity(("multilabel", bits), ("multilabel", 1 - bits)) == 1


def test_missing_labels_are_left_out_pair_by_pair() -> None:
    gaps = NORMAL.copy()
    gaps[::2] = np.nan
    other = np.where(np.arange(N) % 2, NORMAL, 7.0)  # nonsense where the first is missing
    assert label_similarity(("real", gaps), ("real", other)) == pytest.approx(1)
    bits = np.stack([TEN % 2, TEN // 5], 1)
    bits[::3, 1] = np.nan
    assert label_similarity(("multilabel", bits), ("multilabel", bits)) == 1
    assert math.isnan(label_similarity(("real", gaps), ("real", np.where(np.isnan(gaps), 1.0, np.nan))))
    assert math.isnan(label_similarity(("binary", np.ones(N)), ("binary", COIN)))


def test_inputs_of_one_distribution_are_alike_and_others_are_not() -> None:
    x = RANDOM.normal(size=(4, 1000, 30))
    assert input_similarity(x[0], x[1]) > 0.85
    assert input_similarity(x[0], x[1] + 10) == 0
    # normal around 0 and d in one direction: the best classifier errs with Φ(−d/2)
    shifted = x[2] + np.eye(30)[0] * 2
    error = 0.5 * math.erfc(1 / math.sqrt(2))
    assert input_similarity(x[3], shifted) == pytest.approx(2 * error, abs=0.08)
    assert input_similarity(x[0][:200], x[1]) > 0.7  # of sizes that differ
    assert input_similarity(np.zeros((100, 3)), np.zeros((100, 3))) == 1  # nothing to tell them apart by
