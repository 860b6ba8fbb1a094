"""Counts of labels in batches, of words and with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from mtlcli.data.examples import Examples, concat_labels
from mtlcli.data.label_counts import count_labels
from mtlcli.data.loader import Batch, evaluation_batches
from mtlcli.data.placement import Placement
from mtlcli.specs import IGNORE_INDEX

N = IGNORE_INDEX
TAGS = torch.tensor([[1, 0, 1, N], [N] * 4, [0, N, 0, 0], [1, 1, 1, 1], [0, N, 1, 0]])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0])


@pytest.mark.parametrize(("target", "expected"), [
    (TAGS, [3, 0, 3, 4, 3]),
    (torch.tensor([2, IGNORE_INDEX, 0]), [1, 0, 1]),
    (torch.tensor([[0.0, float("nan")], [float("nan")] * 2]), [1, 0]),
    (torch.tensor([float("nan"), 1.5]), [0, 1]),
    (torch.tensor([[[0, N], [2, 1]], [[N, N], [N, N]]]), [3, 0]),
    (torch.tensor([[[0, 255], [2, 1]], [[255, 255], [255, 255]]], dtype=torch.uint8), [3, 0]),
    (torch.tensor([[[[0.0, 1.0]], [[math.nan, 1.0]]], [[[math.nan, 1.0]], [[1.0, math.nan]]]]), [1, 0]),
])  # fmt: skip
def test_words_and_pixels_count_one_by_one_and_other_labels_once(target: Tensor, expected: list[int]) -> None:
    assert count_labels(target).tolist() == expected


def batches(weights: Tensor | None, class_weights: Mapping[str, Tensor]) -> list[Batch]:
    examples = {"texts": Examples(torch.zeros(5, 2), {"tag": TAGS}, weights=weights)}
    placement = Placement(torch.device("cpu"), "resident", 0)
    return list(evaluation_batches(examples, {"pos": ("texts", "tag")}, placement, 2, class_weights))


def test_counts_of_words() -> None:
    assert [batch.counts["pos"] for batch in batches(None, {})] == [3, 7, 3]


def test_counts_with_weights_of_examples() -> None:
    got = batches(WEIGHTS, {})
    assert [batch.counts["pos"] for batch in got] == [3.0, 1.5, 9.0]
    assert [batch.labelled["pos"] for batch in got] == [3, 3, 3]
    assert torch.equal(got[1].weights["pos"], torch.tensor([0.5, 0.0]))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_counts_with_class_weights(weights: Tensor | None) -> None:
    got = batches(weights, {"pos": torch.tensor([4.0, 0.5])})
    own = torch.ones(5) if weights is None else weights
    words = torch.tensor([5.0, 0.0, 12.0, 2.0, 8.5]) * own
    assert [batch.counts["pos"] for batch in got] == [float(rows.sum()) for rows in words.split(2)]
    assert torch.equal(got[2].weights["pos"], torch.tensor([[4.0, 0.0, 0.5, 4.0]]) * own[4])
    assert [batch.labelled["pos"] for batch in got] == ([3, 7, 3] if weights is None else [3, 3, 3])


def test_labels_of_words_are_padded_when_they_are_concatenated() -> None:
    joined = concat_labels([torch.tensor([[1, 2]]), torch.tensor([[3]])])
    assert joined.tolist() == [[1, 2], [3, IGNORE_INDEX]]
