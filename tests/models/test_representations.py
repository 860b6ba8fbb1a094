"""Pooling of sequences and maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlcli.models.representations import Pooling, pool_representation

X = torch.tensor([[[1.0, -2.0], [3.0, 4.0], [100.0, 100.0]], [[5.0, 6.0], [7.0, 8.0], [9.0, -1.0]]])
MASK = torch.tensor([[True, True, False], [True, True, True]])


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("mean", [[2.0, 1.0], [7.0, 13 / 3]]),
        ("cls", [[1.0, -2.0], [5.0, 6.0]]),
        ("max", [[3.0, 4.0], [9.0, 8.0]]),
        ("last", [[3.0, 4.0], [9.0, -1.0]]),
    ],
)
def test_pools_of_a_sequence(pool, expected):
    np.testing.assert_allclose(pool_representation(X, pool, MASK), expected, rtol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "cls", "max", "last"])
def test_without_a_mask_all_positions_count(pool):
    everything = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(pool_representation(X, pool), pool_representation(X, pool, everything))


@pytest.mark.parametrize("pool", ["mean", "cls", "max", "last"])
def test_a_narrower_mask_and_the_padding_change_nothing(pool):
    padded = torch.cat([X, torch.full((2, 4, 2), torch.nan)], 1)
    torch.testing.assert_close(pool_representation(padded, pool, MASK), pool_representation(X, pool, MASK))


def test_the_mean_of_a_long_sequence_of_low_precision_is_exact_to_that_precision():
    x = torch.ones(1, 4096, 1, dtype=torch.bfloat16) * 1.5
    assert pool_representation(x, "mean", torch.ones(1, 4096, dtype=torch.bool)).item() == 1.5


def test_pools_of_a_map():
    x = torch.arange(12.0).view(1, 2, 2, 3)
    assert pool_representation(x, "mean").tolist() == [[2.5, 8.5]]
    assert pool_representation(x, "max").tolist() == [[5.0, 11.0]]


def test_tasks_with_the_same_representation_and_pooling_share_a_tensor():
    pooling = Pooling(lambda x: x[:, 0] >= 0, {"a": "mean", "b": "mean", "c": "max"})
    inputs = {"texts": torch.zeros(2, 2, 3)}
    pooled = pooling.apply(dict.fromkeys("abcd", X), inputs, dict.fromkeys("abcd", "texts"))
    assert pooled["a"] is pooled["b"]
    assert pooled["a"] is not pooled["c"]
    assert pooled["d"] is X  # predicts a sequence


def test_a_vector_is_not_pooled_again():
    vector = torch.zeros(2, 4)
    pooled = Pooling(lambda x: None, {"a": "mean"}).apply({"a": vector}, {"texts": X}, {"a": "texts"})
    assert pooled["a"] is vector
