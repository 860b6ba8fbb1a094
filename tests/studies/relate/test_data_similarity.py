"""Similarity of inputs and of labels."""

import math

import numpy as np
import pytest

from mtlcli.studies.relate.data_similarity import input_interval, input_similarity
from mtlcli.studies.relate.intervals import draw_bootstrap_counts
from mtlcli.studies.relate.label_similarity import label_interval, label_similarity
from mtlcli.studies.relate.task_labels import Labels, LabelType
from tests.oracles import relations as oracle

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
    assert label_similarity(("classes", TEN), ("classes", (TEN * 7) % 10)) == 1  # a permutation of the classes
    assert label_similarity(("classes", TEN), ("classes", RANDOM.permutation(TEN))) < 0.01
    hundred = RANDOM.integers(100, size=(2, N)).astype(float)  # 0.25 without adjustment
    assert label_similarity(("classes", hundred[0]), ("classes", hundred[1])) < 0.01
    # class and parity: log 2, the entropy of the parity, over the mean of log 2 and log 10
    expected = math.log(2) / ((math.log(2) + math.log(10)) / 2)
    assert label_similarity(("classes", TEN), ("binary", TEN % 2)) == pytest.approx(expected, abs=5e-3)
    # a number and its decile
    ranks = RANDOM.permutation(N).astype(float)
    assert label_similarity(("real", ranks), ("classes", ranks // (N // 10))) == pytest.approx(1)
    assert label_similarity(("real", NORMAL), ("classes", TEN)) < 0.01


def test_combinations_of_labels_count_as_classes() -> None:
    bits = np.stack([TEN // 8, TEN // 4 % 2, TEN // 2 % 2, TEN % 2], 1)
    assert label_similarity(("multilabel", bits), ("classes", TEN)) == 1
    assert label_similarity(("multilabel", bits), ("multilabel", 1 - bits)) == 1


def test_missing_labels_are_excluded_by_pair() -> None:
    gaps = NORMAL.copy()
    gaps[::2] = np.nan
    other = np.where(np.arange(N) % 2, NORMAL, 7.0)  # arbitrary values if the first label is missing
    assert label_similarity(("real", gaps), ("real", other)) == pytest.approx(1)
    bits = np.stack([TEN % 2, TEN // 5], 1)
    bits[::3, 1] = np.nan
    assert label_similarity(("multilabel", bits), ("multilabel", bits)) == 1
    assert math.isnan(label_similarity(("real", gaps), ("real", np.where(np.isnan(gaps), 1.0, np.nan))))
    assert math.isnan(label_similarity(("binary", np.ones(N)), ("binary", COIN)))


def test_input_similarity_of_known_distributions() -> None:
    x = RANDOM.normal(size=(4, 1000, 30))
    assert input_similarity(x[0], x[1]) > 0.85
    assert input_similarity(x[0], x[1] + 10) == 0
    # means 0 and d in one direction: the best classifier has error Φ(−d/2)
    shifted = x[2] + np.eye(30)[0] * 2
    error = 0.5 * math.erfc(1 / math.sqrt(2))
    assert input_similarity(x[3], shifted) == pytest.approx(2 * error, abs=0.08)
    assert input_similarity(x[0][:200], x[1]) > 0.7  # different sizes
    assert input_similarity(np.zeros((100, 3)), np.zeros((100, 3))) == 1  # they can't be distinguished


def labels_interval(
    first: tuple[LabelType, Labels], second: tuple[LabelType, Labels], resamples: int
) -> tuple[float, float]:
    counts = draw_bootstrap_counts(len(first[1]), resamples, np.random.default_rng(0))
    return label_interval(first, second, counts)


def related(n: int, seed: int) -> tuple[Labels, Labels, Labels, Labels]:
    """Return two correlated numbers, and two related labels of three classes."""
    random = np.random.default_rng(seed)
    y = random.normal(size=n)
    classes = random.integers(3, size=n).astype(float)
    others = np.where(random.uniform(size=n) < 0.6, classes, random.integers(3, size=n))
    return y, 0.8 * y + random.normal(size=n), classes, others


def test_correlation_interval_matches_the_bootstrap() -> None:
    y, z, _, _ = related(120, 0)
    expected = oracle.centred_bootstrap(lambda x: float(np.corrcoef(x.T)[0, 1]), [np.stack([y, z], 1)], 4000, 1)
    result = labels_interval(("real", y), ("real", -z), 4000)  # the sign of a correlation has no effect
    assert result == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    # for two normal variables it is close to that of Fisher's transformation
    r = np.corrcoef(y, z)[0, 1]
    fisher = np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) / np.sqrt(117))
    assert result == pytest.approx(fisher, abs=0.2 * (fisher[1] - fisher[0]))


def test_correlation_interval_with_both_signs_starts_at_0() -> None:
    low, high = labels_interval(("real", NORMAL[:200]), ("binary", COIN[:200]), 500)
    assert low == 0 < high < 0.35


def test_mutual_information_interval_matches_the_bootstrap() -> None:
    _, _, classes, others = related(90, 2)
    pairs = np.stack([classes, others], 1)
    result = label_similarity(("classes", classes), ("classes", others))
    assert result == pytest.approx(oracle.adjusted_mutual_information(pairs), abs=1e-9)
    expected = oracle.centred_bootstrap(oracle.adjusted_mutual_information, [pairs], 600, 1)
    interval = labels_interval(("classes", classes), ("classes", others), 4000)
    assert interval == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))


def test_input_similarity_interval_matches_the_bootstrap() -> None:
    """The oracle solves the same regression on whitened inputs; the penalty is invariant to rotation."""
    first, second = np.random.default_rng(3).normal(size=(2, 300, 3)) @ np.array([[1, 0, 0], [0.5, 1, 0], [0, 0, 2]])
    second[:, 0] += 1.5
    fitted = np.concatenate([first[::2], second[::2]])
    centre = fitted.mean(0)
    values, vectors = np.linalg.eigh(np.cov(fitted.T, bias=True))
    parts = [
        (inputs - centre) @ vectors / np.sqrt(values) for inputs in (first[::2], second[::2], first[1::2], second[1::2])
    ]

    def error(a: Labels, b: Labels, a_judged: Labels, b_judged: Labels) -> float:
        y, of = np.repeat([0, 1], [len(a), len(b)]), np.repeat([0, 1], [len(a_judged), len(b_judged)])
        return 2 * oracle.logistic_error(np.concatenate([a, b]), y, np.concatenate([a_judged, b_judged]), of)

    # standardizing before and after the projection whitens the inputs, as their own components do
    assert input_similarity(first, second) == pytest.approx(error(*parts), abs=0.015)
    expected = oracle.centred_bootstrap(error, parts, 600, 4)
    interval = input_interval(first, second)
    assert interval == pytest.approx(expected, abs=0.2 * (expected[1] - expected[0]))
    assert input_interval(second, first) == interval


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(1, 5))])
def test_intervals_contain_the_estimate_and_shrink_with_n(seed: int) -> None:
    widths = []
    for n in (200, 3200):
        y, z, classes, others = related(n, seed)
        pairs: list[tuple[tuple[LabelType, Labels], tuple[LabelType, Labels]]] = [
            (("real", y), ("real", z)),
            (("classes", classes), ("classes", others)),
            (("real", z), ("classes", np.digitize(y, [-1, 0, 1]).astype(float))),
            (("multilabel", np.stack([classes > 0, others > 1], 1).astype(float)), ("classes", others)),
        ]
        intervals = [labels_interval(*pair, 200) for pair in pairs]
        estimates = [label_similarity(*pair) for pair in pairs]
        shifted = np.random.default_rng(seed).normal(size=(2, n // 2, 4)) + np.array([0, 0.5])[:, None, None]
        intervals.append(input_interval(*shifted))
        estimates.append(input_similarity(*shifted))
        assert all(low < value < high for value, (low, high) in zip(estimates, intervals, strict=True))
        widths.append(np.array([high - low for low, high in intervals]))
    assert (widths[1] < widths[0] / 2).all()  # about a quarter


def test_intervals_without_variation_have_no_width() -> None:
    assert labels_interval(("classes", TEN), ("classes", (TEN * 7) % 10), 50) == (1, 1)
    assert labels_interval(("binary", COIN), ("binary", 1 - COIN), 50) == (1, 1)
    assert input_interval(NORMAL[:200].reshape(100, 2), NORMAL[:200].reshape(100, 2) + 100) == (0, 0)
    assert input_interval(np.zeros((100, 3)), np.zeros((100, 3))) == (1, 1)


def test_intervals_need_three_examples_and_varying_labels() -> None:
    few = np.where(np.arange(N) < 2, NORMAL, np.nan)
    rare = (np.arange(N) == 0).astype(float)
    for labels in (few, rare, np.ones(N)):
        assert np.isnan(labels_interval(("real", labels), ("real", NORMAL), 50)).all()
        assert np.isnan(labels_interval(("real", labels), ("classes", TEN), 50)).all()
    assert np.isnan(input_interval(np.ones((4, 2)), np.ones((4, 2)))).all()
