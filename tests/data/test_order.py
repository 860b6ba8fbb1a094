from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtlcli.data.samplers.base import ShuffledEpochs, stable_seed


@given(size=st.integers(1, 50), start=st.integers(0, 200), length=st.integers(0, 200), seed=st.integers(0, 9))
def test_any_range_equals_that_of_the_whole_stream(size: int, start: int, length: int, seed: int) -> None:
    passes = ShuffledEpochs(size, seed, "a")
    assert passes.order(start, start + length).tolist() == passes.order(0, 400).tolist()[start : start + length]


@given(size=st.integers(1, 50), k=st.integers(0, 5))
def test_every_pass_has_every_example_once(size: int, k: int) -> None:
    order = ShuffledEpochs(size, 3, "a").order(k * size, (k + 1) * size)
    assert sorted(order.tolist()) == list(range(size))


def test_passes_datasets_and_seeds_differ() -> None:
    orders = [
        ShuffledEpochs(100, 0, "a").order(0, 100),
        ShuffledEpochs(100, 0, "a").order(100, 200),
        ShuffledEpochs(100, 1, "a").order(0, 100),
        ShuffledEpochs(100, 0, "b").order(0, 100),
    ]
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_number_of_the_pass() -> None:
    np.testing.assert_array_equal(ShuffledEpochs(3, 0, "a").number(2, 7), [0, 1, 1, 1, 2])


def test_the_seed_is_the_same_in_another_process() -> None:
    code = "from mtlcli.data.samplers.base import stable_seed; print(stable_seed('pass', 0, 'mnist', 3))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == stable_seed("pass", 0, "mnist", 3)
    assert 0 <= int(printed) < 2**63
