from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.specs import TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.oracles import text_losses as oracle
from tests.tasks.labels import as_floats, as_indices, class_labels, kind

ROWS, WIDTH = 25, 4


def make(target: str = "binary", **options: Any) -> TaskKind:
    spec = TargetSpec("binary", missing=True) if target == "binary" else TargetSpec("classes", 5, missing=True)
    return kind("contrastive", spec, **options)


def pairs() -> Tensor:
    return torch.randn(ROWS, 2, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("target", ["binary", "classes"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_loss(missing: float, target: str, symmetric: bool) -> None:
    labels = class_labels(1 if target == "binary" else 5, ROWS, missing)
    given = as_floats([None if label is None else 1 for label in labels]) if target == "binary" else as_indices(labels)
    task = make(target, symmetric=symmetric, temperature=0.1)
    losses = oracle.info_nce(pairs().double().numpy(), labels, 0.1, symmetric, target == "classes")
    assert task.loss(pairs(), given).item() == pytest.approx(losses.mean(), rel=1e-5)
    labelled = torch.tensor([label is not None for label in labels])
    weight = torch.rand(ROWS, generator=torch.Generator().manual_seed(1)) + 0.1
    expected = np.average(losses, weights=weight[labelled].numpy())
    assert task.loss(pairs(), given, weight).item() == pytest.approx(expected, rel=1e-5)


def test_a_pair_of_weight_0_is_no_negative() -> None:
    task, kept = make(), torch.arange(ROWS) % 3 != 0
    loss = task.loss(pairs(), torch.ones(ROWS), kept.float())
    torch.testing.assert_close(loss, task.loss(pairs()[kept], torch.ones(int(kept.sum()))))


@pytest.mark.parametrize("symmetric", [False, True])
def test_metrics(symmetric: bool) -> None:
    task = make(symmetric=symmetric, candidates=10)
    task.choose_metrics(["recall_at_1", "recall_at_5", "mrr"])
    metrics = task.create_metrics(torch.device("cpu"))
    for start in range(0, ROWS, 7):
        metrics.update(pairs()[start : start + 7], torch.ones(len(pairs()[start : start + 7])))
    ranks = np.array([oracle.ranks(pairs().double().numpy(), 10, way) for way in range(1 + symmetric)])
    assert metrics.compute() == pytest.approx(
        {"recall_at_1": (ranks == 1).mean(), "recall_at_5": (ranks <= 5).mean(), "mrr": (1 / ranks).mean()}, rel=1e-12
    )


def test_copies_of_a_text_dont_count_against_each_other_and_equal_vectors_are_undefined() -> None:
    task = make()
    twice = pairs().repeat(2, 1, 1)
    once, doubled = (task.metrics(torch.device("cpu")) for _ in range(2))
    once.update(pairs(), torch.ones(ROWS))
    doubled.update(twice, torch.ones(2 * ROWS))
    assert doubled.compute()["recall_at_1"] == pytest.approx(once.compute()["recall_at_1"])
    same = task.metrics(torch.device("cpu"))
    same.update(torch.ones(4, 2, WIDTH), torch.ones(4))
    assert np.isnan(same.compute()["mrr"])


def test_predictions_are_cosines() -> None:
    decoded = make().decode(pairs())
    assert isinstance(decoded.labels, Tensor)
    expected = [oracle.cosine(*pair) for pair in pairs().double().numpy()]
    np.testing.assert_allclose(decoded.labels.numpy(), expected, rtol=1e-5)


def test_pairs_that_dont_belong_together_are_refused() -> None:
    assert make().wrong_label(torch.tensor([1.0, 1.0])) is None
    assert "the label 1" in str(make().wrong_label(torch.tensor([1.0, 0.0])))
