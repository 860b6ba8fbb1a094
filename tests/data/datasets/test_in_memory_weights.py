"""Weights of data passed from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtlcli
from mtlcli.data.datasets.in_memory import InMemory
from mtlcli.errors import ConfigError

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
W = np.arange(40) % 4 / 2


def opened(data: object, **options: Any) -> InMemory:
    dataset = InMemory(**{"weights": "w", "test": 0.25, "val": 0.0, **options})
    dataset.attach(data)
    return dataset


def rows_of(inputs: torch.Tensor) -> list[int]:
    """Return the positions of examples in X."""
    return [int(np.abs(X - x.numpy()).sum(1).argmin()) for x in inputs]


ITEMS = [(x, {"y": y, "w": w}) for x, y, w in zip(X, Y, W, strict=True)]


@pytest.mark.parametrize("data", [(X, {"y": Y, "w": W}), ITEMS], ids=["arrays", "items"])
def test_weights_follow_the_examples_of_each_split(data: Any) -> None:
    dataset = opened(data)
    assert list(dataset.describe().targets) == ["y"]
    for split in ("train", "test"):
        examples = dataset.examples(split, 0)
        weights = examples.sample_weights()
        assert isinstance(examples.inputs, torch.Tensor) and weights is not None and weights.dtype == torch.float32
        assert weights.tolist() == [W[row] for row in rows_of(examples.inputs[examples.rows])]


def test_splits_with_weights() -> None:
    dataset = opened({"train": (X, {"y": Y, "w": W}), "test": (X, {"y": Y, "w": W + 1})})
    assert dataset.examples("test", 0).sample_weights().tolist() == (W + 1).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"y": Y, "v": W}, r"`weights` names 'w', which the examples don't have\..* They have: y, v"),
        ({"y": Y, "w": W - 1}, r"the weight of example 0 in 'w' is -1, expected a number from 0 to 1e\+30"),
        ({"y": Y, "w": np.where(W > 1, np.nan, W)}, "the weight of example 3 in 'w' is nan"),
        ({"y": Y, "w": np.array(["a"] * 40)}, "a weight of 'w' is not a number"),
        ({"y": Y, "w": np.ones((40, 2))}, r"the weights 'w' are \[40, 2\], expected one of each example"),
        ({"w": W}, "the data has no target, only the weights 'w'"),
    ],
)
def test_wrong_weights(targets: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened((X, targets)).describe()


def test_changed_weights_are_changed_data() -> None:
    first, second = opened((X, {"y": Y, "w": W})), opened((X, {"y": Y, "w": W + 1}))
    assert first.recorded().short() != second.recorded().short()


def test_training_with_weights(tmp_path: Path) -> None:
    config = {
        "datasets": {"d": {"name": "in_memory", "weights": "w"}},
        "trunk": {"name": "mlp", "hidden": [4]},
        "tasks": {"y": {"dataset": "d", "kind": "binary"}},
        "training": {"epochs": 1, "device": "cpu"},
    }
    summary = mtlcli.train(config, datasets={"d": (X, {"y": Y, "w": W})}, run_dir=tmp_path / "run", plots=False)
    examples = opened((X, {"y": Y, "w": W}), test=0.2).examples("test", 0)
    assert summary["examples"]["test"]["y"] == int((examples.sample_weights() > 0).sum())  # type: ignore[operator]
