from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from mtlcli.specs import TargetSpec
from tests.oracles import task_losses as oracle
from tests.tasks.labels import MISSING_SHARES, as_floats, class_labels, kind, loss_and_gradient, measured, predictions


def table(rows: int, labels: int, missing: float) -> list[list[int | None]]:
    flat = class_labels(2, rows * labels, missing)
    created = [flat[i * labels : (i + 1) * labels] for i in range(rows)]
    if missing:
        created[3] = [None] * labels  # an unlabelled row
    return created


def tensor(rows: list[list[int | None]]) -> torch.Tensor:
    return torch.stack([as_floats(row) for row in rows])


@pytest.mark.parametrize("missing", MISSING_SHARES)
@pytest.mark.parametrize("size", [1, 4])
def test_loss_and_gradient(missing: float, size: int) -> None:
    task = kind("multilabel", TargetSpec("multilabel", size, missing=missing > 0))
    rows, logits = table(20, size, missing), predictions(20, size)
    loss, gradient = loss_and_gradient(task, logits, tensor(rows))
    expected = oracle.multilabel(logits.double().numpy(), rows)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-8)
    assert not gradient[np.isnan(tensor(rows).numpy())].any()


def test_mean_over_batches_weighted_by_labelled_rows() -> None:
    task = kind("multilabel", TargetSpec("multilabel", 4, missing=True))
    target, logits = tensor(table(20, 4, 0.6)), predictions(20, 4)
    parts = [slice(0, 4), slice(4, 7), slice(7, 20)]
    counts = [int(target[rows].isfinite().any(1).sum()) for rows in parts]
    losses = [task.loss(logits[rows], target[rows]).item() for rows in parts]
    mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert mean == pytest.approx(task.loss(logits, target).item(), rel=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("size", [1, 4])
def test_metrics(missing: float, size: int) -> None:
    target, logits = tensor(table(100, size, missing)), predictions(100, size)
    columns = [
        (true[true.isfinite()].int().tolist(), (column[true.isfinite()] > 0).int().tolist())
        for true, column in zip(target.T, logits.T, strict=True)
    ]
    got = measured(kind("multilabel", TargetSpec("multilabel", size, missing=missing > 0)), logits, target)
    assert got == {
        "f1": pytest.approx(np.mean([f1_score(true, predicted) for true, predicted in columns]), rel=1e-12),
        "accuracy": pytest.approx(np.mean([np.mean(np.equal(*pair)) for pair in columns]), rel=1e-12),
    }


def test_labels_without_labelled_entries_are_ignored() -> None:
    target, logits = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]]), torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    got = measured(kind("multilabel", TargetSpec("multilabel", 2, missing=True)), logits, target)
    assert got == {"f1": 1.0, "accuracy": 1.0}
