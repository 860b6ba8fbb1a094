from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlcli.data.samplers.base import Sampler, apportion, limit_sampler
from mtlcli.data.samplers.rates import Rates
from mtlcli.registry import samplers

SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=5)
BATCH = st.integers(1, 100)
EVERY = ["proportional", "rates", "uniform", "temperature", "round_robin"]
EVERY_STEP = ["proportional", "rates", "uniform", "temperature"]
RATES = [2.0, 1.0, 3.0, 0.5, 1.0]


def make(name: str, sizes: list[int], batch_size: int, **options: Any) -> Sampler:
    supplied: list[Any] = [sizes, batch_size]
    if name == "rates":
        aliases = [f"d{index}" for index in range(len(sizes))]
        supplied, options = [*supplied, aliases], {"rates": dict(zip(aliases, RATES, strict=False)), **options}
    sampler: Sampler = samplers[name].target(*supplied, **options)
    return sampler


def take_epoch(sampler: Sampler) -> list[list[int]]:
    """Return for each dataset the positions that the steps of an epoch take, in order."""
    positions_of_datasets: list[list[int]] = [[] for _ in sampler.sizes]
    for step in range(sampler.steps):
        for positions, (start, stop) in zip(positions_of_datasets, sampler.take(step), strict=True):
            positions.extend(range(start, stop))
    return positions_of_datasets


def test_every_sampler_is_tested() -> None:
    assert samplers.names() == sorted(EVERY)


@pytest.mark.parametrize("name", EVERY)
@given(sizes=SIZES, batch_size=BATCH)
def test_steps_take_each_amount_once_and_in_order(name: str, sizes: list[int], batch_size: int) -> None:
    sampler = make(name, sizes, batch_size)
    assert take_epoch(sampler) == [list(range(amount)) for amount in sampler.amounts]


@pytest.mark.parametrize("name", EVERY_STEP)
@given(sizes=SIZES, batch_size=BATCH)
def test_an_epoch_has_as_many_examples_as_the_datasets(name: str, sizes: list[int], batch_size: int) -> None:
    sampler = make(name, sizes, batch_size)
    assert sum(sampler.amounts) == sum(sizes)
    assert sampler.steps == math.ceil(sum(sizes) / (len(sizes) * batch_size))


@pytest.mark.parametrize("name", EVERY_STEP)
@given(sizes=SIZES, batch_size=BATCH)
def test_no_step_is_a_small_remainder(name: str, sizes: list[int], batch_size: int) -> None:
    sampler = make(name, sizes, batch_size)
    for index in range(len(sizes)):
        lengths = {stop - start for start, stop in (sampler.take(step)[index] for step in range(sampler.steps))}
        assert max(lengths) - min(lengths) <= 1


@given(sizes=SIZES, batch_size=BATCH)
def test_proportional_takes_every_example_once(sizes: list[int], batch_size: int) -> None:
    assert make("proportional", sizes, batch_size).amounts == sizes


@given(sizes=SIZES, batch_size=BATCH)
def test_temperature_1_is_proportional(sizes: list[int], batch_size: int) -> None:
    assert make("temperature", sizes, batch_size, temperature=1.0).amounts == sizes


@given(sizes=SIZES, batch_size=BATCH)
def test_a_high_temperature_is_uniform(sizes: list[int], batch_size: int) -> None:
    high, uniform = make("temperature", sizes, batch_size, temperature=1e9), make("uniform", sizes, batch_size)
    assert all(abs(a - b) <= 1 for a, b in zip(high.amounts, uniform.amounts, strict=True))
    assert max(uniform.amounts) - min(uniform.amounts) <= 1


def test_temperature_2_is_proportional_to_the_square_root() -> None:
    assert make("temperature", [900, 100], 10, temperature=2.0).amounts == [750, 250]


@given(sizes=SIZES, batch_size=BATCH)
def test_round_robin_takes_from_one_dataset_in_turn(sizes: list[int], batch_size: int) -> None:
    sampler = make("round_robin", sizes, batch_size)
    assert sampler.steps == len(sizes) * math.ceil(max(sizes) / batch_size)
    assert sampler.amounts == [max(sizes)] * len(sizes)
    for step in range(sampler.steps):
        lengths = [stop - start for start, stop in sampler.take(step)]
        assert [index for index, length in enumerate(lengths) if length] == [step % len(sizes)]
        assert max(lengths) <= batch_size


def test_a_dataset_smaller_than_the_number_of_steps_skips_some() -> None:
    sampler = make("proportional", [1000, 3], 10)
    assert sum(stop > start for start, stop in (sampler.take(step)[1] for step in range(sampler.steps))) == 3


@pytest.mark.parametrize("name", EVERY)
@given(sizes=SIZES, batch_size=st.integers(2, 100))
def test_no_step_takes_a_single_example_with_batch_norm(name: str, sizes: list[int], batch_size: int) -> None:
    plain, sampler = make(name, sizes, batch_size), make(name, sizes, batch_size)
    sampler.smallest = 2
    assert sampler.amounts == plain.amounts
    assert take_epoch(sampler) == [list(range(amount)) for amount in sampler.amounts]
    steps = [[stop - start for start, stop in sampler.take(step)] for step in range(sampler.steps)]
    for lengths, amount in zip(zip(*steps, strict=True), sampler.amounts, strict=True):
        several = {length for length in lengths if length}
        assert min(several) >= min(2, amount) and max(several) - min(several) <= 1
    assert all(any(lengths) for lengths in steps)
    before = [plain.take(step) for step in range(plain.steps)]
    if not any(stop - start == 1 for takes in before for start, stop in takes):
        assert [sampler.take(step) for step in range(sampler.steps)] == before


def test_the_chunks_of_a_small_dataset_are_spread_over_the_steps() -> None:
    sampler = make("proportional", [1000, 9], 10)
    sampler.smallest = 2
    taking = [step for step in range(sampler.steps) if len(range(*sampler.take(step)[1]))]
    assert sampler.steps == 51 and taking == [12, 25, 38, 50]


@pytest.mark.parametrize("sizes", [[], [0], [5, 0]])
def test_an_empty_dataset_is_an_error(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="needs examples in every dataset"):
        make("proportional", sizes, 8)


@given(total=st.integers(1, 10**6), pull=st.lists(st.floats(0.001, 1000), min_size=1, max_size=6))
def test_apportion_sums_to_the_total_and_is_near_the_exact_share(total: int, pull: list[float]) -> None:
    shares = apportion(total, pull)
    assert sum(shares) == total
    assert all(abs(share - total * p / sum(pull)) < 1 + 1e-6 for share, p in zip(shares, pull, strict=True))


@given(sizes=SIZES, batch_size=BATCH)
def test_rates_are_those_of_the_epoch(sizes: list[int], batch_size: int) -> None:
    rates = RATES[: len(sizes)]
    for amount, rate in zip(make("rates", sizes, batch_size).amounts, rates, strict=True):
        assert amount == 1 or abs(amount - sum(sizes) * rate / sum(rates)) < 1


def test_an_epoch_has_an_example_of_a_dataset_with_a_low_rate() -> None:
    assert Rates([100, 100], 10, ["a", "b"], rates={"a": 1000, "b": 1}).amounts == [200, 1]


def test_rates_repeat_a_small_dataset() -> None:
    sampler = Rates([60_000, 1_500], 64, ["mnist", "digits"], rates={"digits": 1, "mnist": 2})
    assert sampler.amounts == [41_000, 20_500]


def test_rates_need_every_dataset() -> None:
    with pytest.raises(ValueError, match=r"`rates` needs a rate of each dataset \(a, b\), got a"):
        Rates([3, 4], 2, ["a", "b"], rates={"a": 1})


@pytest.mark.parametrize("name", EVERY)
@given(sizes=SIZES, batch_size=BATCH, limits=st.lists(st.none() | st.integers(1, 600), min_size=5, max_size=5))
def test_no_epoch_exceeds_a_limit(name: str, sizes: list[int], batch_size: int, limits: list[int | None]) -> None:
    limits = limits[: len(sizes)]
    try:
        sampler = limit_sampler(lambda numbers: make(name, numbers, batch_size), sizes, limits)
    except ValueError as error:
        assert "`limit` is too small" in str(error) and name == "rates"  # noqa: PT017
        return
    for amount, limit in zip(sampler.amounts, limits, strict=True):
        assert limit is None or amount <= limit
    assert take_epoch(sampler) == [list(range(amount)) for amount in sampler.amounts]


@pytest.mark.parametrize(
    ("name", "limits", "amounts"),
    [
        ("proportional", [300, 2000], [300, 719]),
        ("uniform", [300, None], [300, 300]),
        ("uniform", [None, None], [1006, 1006]),
        ("rates", [None, 100], [200, 100]),
        ("round_robin", [500, None], [500, 500]),
    ],
)
def test_limits_keep_the_proportions(name: str, limits: list[int | None], amounts: list[int]) -> None:
    limited = limit_sampler(lambda numbers: make(name, numbers, 32), [1293, 719], limits).amounts
    assert all(amount - 1 <= n <= amount + 1 for n, amount in zip(limited, amounts, strict=True))
