"""Statistics compared with their definitions, SciPy and calculations by hand."""

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
HIGHER_IS_BETTER: dict[Metric, bool] = {("a", "acc"): True, ("a", "f1"): True, ("b", "err"): False}
METRICS = list(HIGHER_IS_BETTER)


def random_scores() -> tuple[np.ndarray, np.ndarray]:
    """Return scores of four methods [4, 5 seeds, 3 metrics] and of a baseline [5, 3]."""
    random = np.random.RandomState(0)
    return random.uniform(0.5, 1.0, (4, 5, 3)), random.uniform(0.5, 1.0, (5, 3))


def to_scores(table: np.ndarray) -> dict[Metric, dict[int, float]]:
    return {metric: dict(zip(SEEDS, table[:, k].tolist(), strict=True)) for k, metric in enumerate(METRICS)}


@pytest.mark.parametrize("n", [3, 5, 30])
def test_interval_matches_student_t(n: int) -> None:
    values = np.random.RandomState(n).normal(3, 2, n)
    result = estimate(values.tolist())
    assert (result.n, result.mean, result.sd) == (n, pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert (result.low, result.high) == pytest.approx(oracle.interval(values), rel=1e-6)
    assert (result.low, result.high) == pytest.approx(stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values)))


def test_interval_of_known_values() -> None:
    result = estimate([1.0, 2.0, 3.0])  # sd 1, t = 4.30265
    assert (result.high - result.low) / 2 == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert (result.low + result.high) / 2 == result.mean == 2
    single = estimate([4.0, math.nan])
    assert (single.n, single.mean, math.isnan(single.low)) == (1, 4.0, True)
    two = estimate([1.0, 3.0])
    assert (two.n, two.mean, two.sd, math.isnan(two.low)) == (2, 2.0, pytest.approx(math.sqrt(2)), True)
    assert math.isnan(estimate([]).mean)


def test_delta_m_averages_paired_changes() -> None:
    table, base = random_scores()
    for method in table:
        changes = relative_changes(to_scores(method), to_scores(base), HIGHER_IS_BETTER)
        by_seed = delta_m(changes)
        expected = oracle.delta_m(method.mean(0), base.mean(0), np.array(list(HIGHER_IS_BETTER.values())))
        assert estimate(list(by_seed.values())).mean == pytest.approx(expected)
        for seed in SEEDS:  # paired with the baseline of the seed
            pairs = np.array([-1, -1, 1]) * (method[seed] - base[seed]) / base.mean(0)
            assert by_seed[seed] == pytest.approx(100 * pairs.mean())
    alike = relative_changes(to_scores(base), to_scores(base), HIGHER_IS_BETTER)
    assert set(delta_m(alike).values()) == {0.0}


def test_delta_m_of_known_values() -> None:
    """One task is 10 % and 30 % better, the other 10 % worse: flat −10, by task −5."""
    ours = {("a", "acc"): {0: 55.0}, ("a", "f1"): {0: 65.0}, ("b", "err"): {0: 1.1}}
    base = {("a", "acc"): {0: 50.0}, ("a", "f1"): {0: 50.0}, ("b", "err"): {0: 1.0}}
    changes = relative_changes(ours, base, HIGHER_IS_BETTER)
    assert delta_m(changes)[0] == pytest.approx(-10)
    assert delta_m_by_task(changes)[0] == pytest.approx(-5)


def test_changes_without_a_baseline_value_are_missing() -> None:
    """A baseline of 0 or without a value has no percentages; a negative one has, in the same direction."""
    ours = {("a", "acc"): {0: -1.0, 1: -1.0}, ("a", "f1"): {0: 1.0, 1: 1.0}, ("b", "err"): {0: 1.0}}
    base = {("a", "acc"): {0: -2.0, 1: -2.0}, ("a", "f1"): {0: 0.0}, ("b", "err"): {0: math.nan}}
    changes = relative_changes(ours, base, HIGHER_IS_BETTER)
    assert changes == {("a", "acc"): {0: -50.0, 1: -50.0}}
    assert delta_m({}) == {}
    lacking = relative_changes(
        {**ours, ("b", "err"): {0: 2.0}}, {**base, ("b", "err"): {0: 1.0, 1: 1.0}}, HIGHER_IS_BETTER
    )
    assert delta_m(lacking)[0] == 25
    assert math.isnan(delta_m(lacking)[1])  # a metric has no value with this seed


def test_change_is_paired_in_points_or_guarded_percent() -> None:
    table, base = random_scores()
    ours = table[0].copy()
    ours[1, 0] = base[4, 0] = base[2, 2] = np.nan
    base[:, 2] /= 1000  # an error near 0
    bounded, floor = np.array([True, True, False]), np.array([0, 0, 0.01])
    expected = oracle.changes(ours, base, bounded, floor)
    result = [
        compute_change(to_scores(ours)[m], to_scores(base)[m], b, f)
        for m, b, f in zip(METRICS, bounded, floor, strict=True)
    ]
    assert [list(change.by_seed) for change in result] == [[0, 2, 3], [0, 1, 2, 3, 4], [0, 1, 3, 4]]
    for k, change in enumerate(result):
        assert list(change.by_seed.values()) == pytest.approx(expected[~np.isnan(expected[:, k]), k].tolist())
    assert result[0].method == pytest.approx(ours[[0, 2, 3], 0].mean())
    assert result[0].reference == pytest.approx(base[[0, 2, 3], 0].mean())
    assert [change.unit for change in result] == ["points", "points", "percent"]
    assert result[2].denominator == 0.01
    larger = compute_change(to_scores(ours)[METRICS[2]], to_scores(base)[METRICS[2]], False)
    assert larger.denominator == pytest.approx(base[[0, 1, 3, 4], 2].mean())


def test_delta_m_of_changes_of_known_values() -> None:
    """Accuracy 4 points better, error 10 % worse: Δm = (−4 + 10) / 2 = 3; none for a seed without a value."""
    changes = {
        ("a", "acc"): compute_change({0: 0.54, 1: 0.9}, {0: 0.5, 1: 0.9}, True),
        ("b", "err"): compute_change({0: 1.1}, {0: 1.0}, False),
        ("c", "err"): compute_change({0: 1.0}, {0: 0.0}, False),  # a percentage of 0 is undefined
    }
    assert changes["c", "err"].by_seed == {}
    result = delta_m_of_changes(changes, {("a", "acc"): True, ("b", "err"): False, ("c", "err"): False})
    assert result == {0: pytest.approx(3)}
    assert delta_m_of_changes({}, {}) == {}


def test_example_error_matches_the_bootstrap() -> None:
    random = np.random.RandomState(3)
    own, reference = (random.uniform(size=(2, 400)) < share for share in (0.9, 0.8))
    draws = random.randint(400, size=(2000, 400))
    samples = [{seed: right[seed][draws].mean(1).tolist() for seed in range(2)} for right in (own, reference)]
    result = example_error(*samples, [0, 1], 1.0)
    expected = oracle.bootstrap_error(own.astype(float), reference.astype(float))
    assert result == pytest.approx(expected, rel=0.08)  # 5 standard errors of a standard deviation of 2,000 samples
    assert example_error(*samples, [0, 1], 0.5) == pytest.approx(2 * result)
    assert math.isnan(example_error(samples[0], {0: [], 1: []}, [0, 1], 1.0))  # a run of an earlier version
    assert math.isnan(example_error(*samples, [], 1.0))
    assert math.isnan(example_error(samples[0], {0: samples[1][0], 1: samples[1][1][:50]}, [0, 1], 1.0))


def test_mean_ranks() -> None:
    table, _ = random_scores()
    table[3, :, 0] = table[0, :, 0]  # ties
    means = table.mean(1)
    named = {str(number): to_scores(values) for number, values in enumerate(table)}
    result = mean_ranks(named, HIGHER_IS_BETTER)
    rises = np.array(list(HIGHER_IS_BETTER.values()))
    assert list(result.values()) == pytest.approx(oracle.mean_ranks(means, rises).tolist())
    by_scipy = stats.rankdata(np.where(rises, -means, means), axis=0).mean(1)
    assert list(result.values()) == pytest.approx(by_scipy.tolist())
    lost = mean_ranks({**named, "failed": {key: {0: math.nan} for key in METRICS}, "none": {}}, HIGHER_IS_BETTER)
    assert math.isnan(lost.pop("failed")) and math.isnan(lost.pop("none"))
    assert lost == result
    assert mean_ranks({}, HIGHER_IS_BETTER) == {}


def test_ranks_use_seeds_that_all_methods_have() -> None:
    """A method that failed with a difficult seed does not gain from it."""
    whole = {("a", "acc"): {0: 0.9, 1: 0.5}}
    partly = {("a", "acc"): {0: 0.8}}
    assert mean_ranks({"whole": whole, "partly": partly}, HIGHER_IS_BETTER) == {"whole": 1.0, "partly": 2.0}


def test_paired_test_matches_scipy() -> None:
    table, _ = random_scores()
    a, b = table[0, :, 0], table[1, :, 0]
    result = paired_test(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    assert result.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert result.p == pytest.approx(oracle.paired_p(a, b), rel=1e-6)
    assert result.difference.mean == pytest.approx((a - b).mean())
    some = dict(list(enumerate(b.tolist()))[:4])
    assert paired_test(dict(enumerate(a.tolist())), some).p == pytest.approx(stats.ttest_rel(a[:4], b[:4]).pvalue)
    assert math.isnan(paired_test({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.5}).p)  # fewer than three seeds


def test_difference_without_variance_is_not_tested() -> None:
    """An equal difference with three seeds may be due to the resolution of the metric."""
    base = {0: 0.9, 1: 0.8, 2: 0.7}
    assert paired_test(base, base).p == 1
    assert math.isnan(paired_test({seed: value + 0.1 for seed, value in base.items()}, base).p)


def test_paired_test_of_known_values() -> None:
    """Differences 1, 2, 3: t = 2√3 = 3.4641 with 2 degrees of freedom, p = 1 − t/√(t² + 2) = 0.0742."""
    result = paired_test({0: 1.0, 1: 2.0, 2: 3.0}, dict.fromkeys(range(3), 0.0))
    assert result.p == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-9)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.02, math.nan])[0] == 0.02  # an undefined p-value is not counted
    assert holm([]) == []
    p = np.random.RandomState(1).uniform(0, 0.2, 9)
    assert holm(p.tolist()) == pytest.approx(oracle.holm(p).tolist())
