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


def labels_interval(
    first: tuple[LabelType, Labels], second: tuple[LabelType, Labels], resamples: int
) -> tuple[float, float]:
    counts = draw_bootstrap_counts(len(first[1]), resamples, np.random.default_rng(0))
    return label_interval(first, second, counts)


def related(n: int, seed: int) -> tuple[Labels, Labels, Labels, Labels]:
    """Two correlated numbers, and two related labels of three classes."""
    random = np.random.default_rng(seed)
    y = random.normal(size=n)
    classes = random.integers(3, size=n).astype(float)
    others = np.where(random.uniform(size=n) < 0.6, classes, random.integers(3, size=n))
    return y, 0.8 * y + random.normal(size=n), classes, others


def test_the_interval_of_a_correlation_is_numpys_bootstrap() -> None:
    y, z, _, _ = related(120, 0)
    expected = oracle.centred_bootstrap(lambda x: float(np.corrcoef(x.T)[0, 1]), [np.stack([y, z], 1)], 4000, 1)
    found = labels_interval(("real", y), ("real", -z), 4000)  # the sign of a correlation has no effect
    assert found == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    # of two normal variables it is near that of Fisher's transformation
    r = np.corrcoef(y, z)[0, 1]
    fisher = np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) / np.sqrt(117))
    assert found == pytest.approx(fisher, abs=0.2 * (fisher[1] - fisher[0]))


def test_the_interval_of_a_correlation_of_any_sign_starts_at_0() -> None:
    low, high = labels_interval(("real", NORMAL[:200]), ("binary", COIN[:200]), 500)
    assert low == 0 < high < 0.35


def test_the_interval_of_a_mutual_information_is_numpys_bootstrap() -> None:
    _, _, classes, others = related(90, 2)
    pairs = np.stack([classes, others], 1)
    found = label_similarity(("classes", classes), ("classes", others))
    assert found == pytest.approx(oracle.adjusted_mutual_information(pairs), abs=1e-9)
    expected = oracle.centred_bootstrap(oracle.adjusted_mutual_information, [pairs], 600, 1)
    interval = labels_interval(("classes", classes), ("classes", others), 4000)
    assert interval == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))


def test_the_interval_of_an_input_similarity_is_numpys_bootstrap() -> None:
    """The same classifier from its equations, on the whitened inputs: the penalty doesn't change by a rotation."""
    first, second = np.random.default_rng(3).normal(size=(2, 300, 3)) @ np.array([[1, 0, 0], [0.5, 1, 0], [0, 0, 2]])
    second[:, 0] += 1.5
    fitted = np.concatenate([first[::2], second[::2]])
    centre = fitted.mean(0)
    values, vectors = np.linalg.eigh(np.cov(fitted.T, bias=True))
    parts = [
        (part - centre) @ vectors / np.sqrt(values) for part in (first[::2], second[::2], first[1::2], second[1::2])
    ]

    def error(a: Labels, b: Labels, a_judged: Labels, b_judged: Labels) -> float:
        y, of = np.repeat([0, 1], [len(a), len(b)]), np.repeat([0, 1], [len(a_judged), len(b_judged)])
        return 2 * oracle.logistic_error(np.concatenate([a, b]), y, np.concatenate([a_judged, b_judged]), of)

    # standardizing before the components and after them whitens as the components of the raw inputs do
    assert input_similarity(first, second) == pytest.approx(error(*parts), abs=0.015)
    expected = oracle.centred_bootstrap(error, parts, 600, 4)
    interval = input_interval(first, second)
    assert interval == pytest.approx(expected, abs=0.2 * (expected[1] - expected[0]))
    assert input_interval(second, first) == interval


@pytest.mark.parametrize("seed", range(5))
def test_intervals_contain_the_estimate_and_shrink_with_the_examples(seed: int) -> None:
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
    assert (widths[1] < widths[0] / 2).all()  # a quarter, up to the resamples' noise


def test_intervals_of_what_no_resample_changes() -> None:
    assert labels_interval(("classes", TEN), ("classes", (TEN * 7) % 10), 50) == (1, 1)
    assert labels_interval(("binary", COIN), ("binary", 1 - COIN), 50) == (1, 1)
    assert input_interval(NORMAL[:200].reshape(100, 2), NORMAL[:200].reshape(100, 2) + 100) == (0, 0)
    assert input_interval(np.zeros((100, 3)), np.zeros((100, 3))) == (1, 1)


def test_intervals_need_three_examples_and_labels_that_vary_in_every_resample() -> None:
    few = np.where(np.arange(N) < 2, NORMAL, np.nan)
    rare = (np.arange(N) == 0).astype(float)
    for labels in (few, rare, np.ones(N)):
        assert np.isnan(labels_interval(("real", labels), ("real", NORMAL), 50)).all()
        assert np.isnan(labels_interval(("real", labels), ("classes", TEN), 50)).all()
    assert np.isnan(input_interval(np.ones((4, 2)), np.ones((4, 2)))).all()
