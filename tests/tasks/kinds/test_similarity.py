from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from mtlcli.specs import TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.oracles import text_losses as oracle
from tests.tasks.labels import as_floats, kind, measured

ROWS, WIDTH = 24, 6
REAL = TargetSpec("real", missing=True)


def make(**options: Any) -> TaskKind:
    return kind("similarity", REAL, **{"scale": [0, 5], **options})


def pairs() -> Tensor:
    return torch.randn(ROWS, 2, WIDTH, generator=torch.Generator().manual_seed(0))


def scores(missing: float = 0.3) -> list[float | None]:
    rng = np.random.default_rng(0)
    return [None if rng.random() < missing else float(rng.integers(0, 11)) / 2 for _ in range(ROWS)]


def predict(task: TaskKind, vectors: Tensor) -> Tensor:
    layer = task.output_layer()
    assert layer is not None
    predicted: Tensor = layer(vectors.flatten(0, 1))
    return predicted


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_mean_squared_error_of_the_cosine(missing: float, lowest: float) -> None:
    task, labels = make(lowest=lowest), scores(missing)
    cosines = [None if score is None else lowest + score / 5 * (1 - lowest) for score in labels]
    loss = task.loss(predict(task, pairs()), as_floats(labels))
    assert loss.item() == pytest.approx(oracle.squared(pairs().double().numpy(), cosines), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_cosent(weighted: bool) -> None:
    task, labels = make(loss="cosent", lowest=-1.0, scale=[-4, 4]), scores()
    weights = torch.randint(0, 3, (ROWS,), generator=torch.Generator().manual_seed(1)).float() if weighted else None
    loss = task.loss(predict(task, pairs()), as_floats(labels), weights)
    expected = oracle.cosent(pairs().double().numpy(), labels, 20.0, None if weights is None else weights.tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_metrics_and_units() -> None:
    task, labels = make(), scores()
    task.choose_metrics(["spearman", "pearson", "mae", "rmse"])
    prediction = predict(task, pairs())
    metrics = task.create_metrics(torch.device("cpu"))
    metrics.update(prediction, as_floats(labels))
    rows = [row for row, label in enumerate(labels) if label is not None]
    y = np.array([labels[row] for row in rows], float)
    guess = 5 * np.array([oracle.cosine(*pair) for pair in pairs().double().numpy()[rows]])
    assert metrics.compute() == pytest.approx(
        {
            "spearman": spearmanr(y, guess).statistic,
            "pearson": pearsonr(y, guess).statistic,
            "mae": np.abs(y - guess).mean(),
            "rmse": np.sqrt(((y - guess) ** 2).mean()),
        },
        rel=1e-5,
    )


def test_metrics_with_weights_are_those_of_repeated_examples() -> None:
    task, labels, prediction = make(), as_floats(scores()), predict(make(), pairs()).round(decimals=0)
    weight = torch.randint(0, 4, (ROWS,), generator=torch.Generator().manual_seed(2)).float()
    rows = torch.arange(ROWS).repeat_interleave(weight.long())
    metrics = task.metrics(torch.device("cpu"))
    metrics.update(prediction, labels, weight)
    assert metrics.compute() == pytest.approx(measured(task, prediction[rows], labels[rows]), rel=1e-6)


def test_scale() -> None:
    assert kind("similarity", TargetSpec("binary")).high == 1.0  # type: ignore[attr-defined]
    assert kind("similarity", TargetSpec("classes", 6)).high == 5.0  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"a real target needs `scale`.*\[0, 5\]"):
        kind("similarity", REAL)
    with pytest.raises(ValueError, match="must be increasing"):
        make(scale=[1, 1])
    assert make().wrong_label(torch.tensor([5.0, 7.5])) == "7.5, expected a score from 0 to 5 (see `scale`)"
    assert make().wrong_label(torch.tensor([5.0, 0.0])) is None
