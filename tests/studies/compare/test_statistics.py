"""The statistics, against their definitions, SciPy, published tables, and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mtlcli.studies.compare.statistics import (
    Metric,
    compute_change,
    delta_m,
    delta_m_by_task,
    delta_m_of_changes,
    estimate,
    example_error,
    holm,
    mean_ranks,
    paired_test,
    relative_changes,
)
from tests.oracles import comparison as oracle

SEEDS = range(5)
RISES: dict[Metric, bool] = {("a", "acc"): True, ("a", "f1"): True, ("b", "err"): False}
METRICS = list(RISES)


def made() -> tuple[np.ndarray, np.ndarray]:
    """Four methods [4, 5 seeds, 3 metrics], and a baseline [5, 3]."""
    random = np.random.RandomState(0)
    return random.uniform(0.5, 1.0, (4, 5, 3)), random.uniform(0.5, 1.0, (5, 3))


def figures(table: np.ndarray) -> dict[Metric, dict[int, float]]:
    return {metric: dict(zip(SEEDS, table[:, k].tolist(), strict=True)) for k, metric in enumerate(METRICS)}


@pytest.mark.parametrize("n", [3, 5, 30])
def test_the_interval(n: int) -> None:
    values = np.random.RandomState(n).normal(3, 2, n)
    found = estimate(values.tolist())
    assert (found.n, found.mean, found.sd) == (n, pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert (found.low, found.high) == pytest.approx(oracle.interval(values), rel=1e-6)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values)))


def test_the_interval_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])  # sd 1, t = 4.30265
    assert (found.high - found.low) / 2 == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert (found.low + found.high) / 2 == found.mean == 2
    one = estimate([4.0, math.nan])
    assert (one.n, one.mean, math.isnan(one.low)) == (1, 4.0, True)
    two = estimate([1.0, 3.0])
    assert (two.n, two.mean, two.sd, math.isnan(two.low)) == (2, 2.0, pytest.approx(math.sqrt(2)), True)
    assert math.isnan(estimate([]).mean)


@pytest.mark.parametrize("method", oracle.NYU_ROWS)
def test_delta_m_is_the_one_printed_in_the_papers(method: str) -> None:
    row, printed = oracle.NYU_ROWS[method]
    metrics = [(task, str(number)) for number, task in enumerate(oracle.NYU_TASKS)]
    rises = dict(zip(metrics, oracle.NYU_RISES, strict=True))
    ours = {metric: {0: value} for metric, value in zip(metrics, row, strict=True)}
    baseline = {metric: {0: value} for metric, value in zip(metrics, oracle.NYU_BASELINE, strict=True)}
    found = delta_m(relative_changes(ours, baseline, rises))[0]
    assert found == pytest.approx(printed, abs=0.01)  # theirs is of figures with more digits
    assert found == pytest.approx(
        oracle.delta_m(np.array(row), np.array(oracle.NYU_BASELINE), np.array(oracle.NYU_RISES))
    )


def test_delta_m_is_that_of_the_means_and_its_scatter_is_of_both() -> None:
    table, base = made()
    for method in table:
        changes = relative_changes(figures(method), figures(base), RISES)
        by_seed = delta_m(changes)
        expected = oracle.delta_m(method.mean(0), base.mean(0), np.array(list(RISES.values())))
        assert estimate(list(by_seed.values())).mean == pytest.approx(expected)
        for seed in SEEDS:  # paired with the baseline of the seed
            pairs = np.array([-1, -1, 1]) * (method[seed] - base[seed]) / base.mean(0)
            assert by_seed[seed] == pytest.approx(100 * pairs.mean())
    alike = relative_changes(figures(base), figures(base), RISES)
    assert set(delta_m(alike).values()) == {0.0}


def test_delta_m_by_hand() -> None:
    """One task 10% and 30% better, the other 10% worse: flat −10, over the tasks −5."""
    ours = {("a", "acc"): {0: 55.0}, ("a", "f1"): {0: 65.0}, ("b", "err"): {0: 1.1}}
    base = {("a", "acc"): {0: 50.0}, ("a", "f1"): {0: 50.0}, ("b", "err"): {0: 1.0}}
    changes = relative_changes(ours, base, RISES)
    assert delta_m(changes)[0] == pytest.approx(-10)
    assert delta_m_by_task(changes)[0] == pytest.approx(-5)


def test_what_has_no_change() -> None:
    """A baseline of 0 or none has no percentages; a negative one has, in the same direction."""
    ours = {("a", "acc"): {0: -1.0, 1: -1.0}, ("a", "f1"): {0: 1.0, 1: 1.0}, ("b", "err"): {0: 1.0}}
    base = {("a", "acc"): {0: -2.0, 1: -2.0}, ("a", "f1"): {0: 0.0}, ("b", "err"): {0: math.nan}}
    changes = relative_changes(ours, base, RISES)
    assert changes == {("a", "acc"): {0: -50.0, 1: -50.0}}
    assert delta_m({}) == {}
    lacking = relative_changes({**ours, ("b", "err"): {0: 2.0}}, {**base, ("b", "err"): {0: 1.0, 1: 1.0}}, RISES)
    assert delta_m(lacking)[0] == 25
    assert math.isnan(delta_m(lacking)[1])  # of one metric this seed has no value


def test_a_change_is_of_paired_seeds_in_points_or_guarded_percent() -> None:
    table, base = made()
    ours = table[0].copy()
    ours[1, 0] = base[4, 0] = base[2, 2] = np.nan
    base[:, 2] /= 1000  # an error near 0
    bounded, floor = np.array([True, True, False]), np.array([0, 0, 0.01])
    expected = oracle.changes(ours, base, bounded, floor)
    found = [
        compute_change(figures(ours)[m], figures(base)[m], b, f)
        for m, b, f in zip(METRICS, bounded, floor, strict=True)
    ]
    assert [list(one.by_seed) for one in found] == [[0, 2, 3], [0, 1, 2, 3, 4], [0, 1, 3, 4]]
    for k, one in enumerate(found):
        assert list(one.by_seed.values()) == pytest.approx(expected[~np.isnan(expected[:, k]), k].tolist())
    assert found[0].method == pytest.approx(ours[[0, 2, 3], 0].mean())
    assert found[0].reference == pytest.approx(base[[0, 2, 3], 0].mean())
    assert [one.unit for one in found] == ["points", "points", "percent"]
    assert found[2].denominator == 0.01
    larger = compute_change(figures(ours)[METRICS[2]], figures(base)[METRICS[2]], False)
    assert larger.denominator == pytest.approx(base[[0, 1, 3, 4], 2].mean())


def test_delta_m_of_changes_by_hand() -> None:
    """Accuracy 4 points better, an error 10 % worse: Δm is (−4 + 10) / 2 = 3; a seed without one has none."""
    changes = {
        ("a", "acc"): compute_change({0: 0.54, 1: 0.9}, {0: 0.5, 1: 0.9}, True),
        ("b", "err"): compute_change({0: 1.1}, {0: 1.0}, False),
        ("c", "err"): compute_change({0: 1.0}, {0: 0.0}, False),  # percentages of 0 don't exist
    }
    assert changes["c", "err"].by_seed == {}
    found = delta_m_of_changes(changes, {("a", "acc"): True, ("b", "err"): False, ("c", "err"): False})
    assert found == {0: pytest.approx(3)}
    assert delta_m_of_changes({}, {}) == {}


def test_the_error_that_the_examples_make() -> None:
    random = np.random.RandomState(3)
    own, reference = (random.uniform(size=(2, 400)) < share for share in (0.9, 0.8))
    draws = random.randint(400, size=(2000, 400))
    samples = [{seed: right[seed][draws].mean(1).tolist() for seed in range(2)} for right in (own, reference)]
    found = example_error(*samples, [0, 1], 1.0)
    expected = oracle.bootstrap_error(own.astype(float), reference.astype(float))
    assert found == pytest.approx(expected, rel=0.08)  # 5 standard errors of a standard deviation of 2,000 samples
    assert example_error(*samples, [0, 1], 0.5) == pytest.approx(2 * found)
    assert math.isnan(example_error(samples[0], {0: [], 1: []}, [0, 1], 1.0))  # a run of an earlier version
    assert math.isnan(example_error(*samples, [], 1.0))
    assert math.isnan(example_error(samples[0], {0: samples[1][0], 1: samples[1][1][:50]}, [0, 1], 1.0))


def test_mean_ranks() -> None:
    table, _ = made()
    table[3, :, 0] = table[0, :, 0]  # equals
    means = table.mean(1)
    named = {str(number): figures(part) for number, part in enumerate(table)}
    found = mean_ranks(named, RISES)
    rises = np.array(list(RISES.values()))
    assert list(found.values()) == pytest.approx(oracle.mean_ranks(means, rises).tolist())
    by_scipy = stats.rankdata(np.where(rises, -means, means), axis=0).mean(1)
    assert list(found.values()) == pytest.approx(by_scipy.tolist())
    lost = mean_ranks({**named, "failed": {key: {0: math.nan} for key in METRICS}, "none": {}}, RISES)
    assert math.isnan(lost.pop("failed")) and math.isnan(lost.pop("none"))
    assert lost == found
    assert mean_ranks({}, RISES) == {}


def test_ranks_are_of_the_seeds_that_all_have() -> None:
    """A method that failed with a hard seed is not ranked first for having only the easy ones."""
    whole = {("a", "acc"): {0: 0.9, 1: 0.5}}
    partly = {("a", "acc"): {0: 0.8}}
    assert mean_ranks({"whole": whole, "partly": partly}, RISES) == {"whole": 1.0, "partly": 2.0}


def test_the_paired_test() -> None:
    table, _ = made()
    a, b = table[0, :, 0], table[1, :, 0]
    found = paired_test(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.p == pytest.approx(oracle.paired_p(a, b), rel=1e-6)
    assert found.difference.mean == pytest.approx((a - b).mean())
    some = dict(list(enumerate(b.tolist()))[:4])
    assert paired_test(dict(enumerate(a.tolist())), some).p == pytest.approx(stats.ttest_rel(a[:4], b[:4]).pvalue)
    assert math.isnan(paired_test({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.5}).p)  # fewer than three seeds


def test_a_difference_without_scatter_is_not_tested() -> None:
    """The same difference in three seeds may be the resolution of the metric; it is no proof of anything."""
    base = {0: 0.9, 1: 0.8, 2: 0.7}
    assert paired_test(base, base).p == 1
    assert math.isnan(paired_test({seed: value + 0.1 for seed, value in base.items()}, base).p)


def test_the_paired_test_by_hand() -> None:
    """Differences 1, 2, 3: t = 2√3 = 3.4641 with 2 degrees of freedom, p = 1 − t/√(t² + 2) = 0.0742."""
    found = paired_test({0: 1.0, 1: 2.0, 2: 3.0}, dict.fromkeys(range(3), 0.0))
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-9)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.02, math.nan])[0] == 0.02  # what could not be tested is no test
    assert holm([]) == []
    p = np.random.RandomState(1).uniform(0, 0.2, 9)
    assert holm(p.tolist()) == pytest.approx(oracle.holm(p).tolist())
