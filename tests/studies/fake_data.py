"""Dataset for the tests, whose tasks have known relations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import REGISTRIES, datasets, trunks
from mtlcli.specs import DatasetSpec, TargetSpec

TARGETS = {"sign": "binary", "flipped": "binary", "unrelated": "binary", "sum": "real", "minus_sum": "real"}
TRAINING = {"epochs": 2, "batch_size": 30, "device": "cpu", "threads": 1}


class FakeDataset(Dataset):
    """200 rows of 4 normal numbers plus `shift`; the target `unrelated` does not depend on them."""

    def __init__(self, *, shift: float = 0.0) -> None:
        super().__init__(val=0.25)
        self.shift = shift

    def describe(self) -> DatasetSpec:
        targets = {name: TargetSpec(kind) for name, kind in TARGETS.items()}  # type: ignore[arg-type]
        splits = add_val_split(self.own_splits(), self.val)
        return DatasetSpec((4,), targets, "sign", splits, (self.shift,), (1.0,), {})

    def read(self, split: str) -> Examples:
        generator = torch.Generator().manual_seed(0 if split == "train" else 1)
        x = torch.randn(200, 4, generator=generator)
        sign, total = (x[:, 0] + x[:, 1] > 0).float(), x.sum(1)
        unrelated = (torch.rand(200, generator=generator) > 0.5).float()
        targets = {"sign": sign, "flipped": 1 - sign, "unrelated": unrelated, "sum": total, "minus_sum": -total}
        return Examples(x + self.shift, targets)


class Linear(Trunk):
    """Linear map without bias."""

    def __init__(self, input_shape: tuple[int, ...], *, features: int = 3) -> None:
        super().__init__()
        self.features = features
        self.map = torch.nn.Linear(input_shape[0], features, bias=False)

    def stages(self) -> dict[str, Any]:
        return {"map": self._map}

    def _map(self, x: Tensor) -> Tensor:
        out: Tensor = self.map(x)
        return out


@pytest.fixture(scope="module")
def fake_dataset() -> Iterator[None]:
    """Register the dataset `fake` and the trunk `linear_map`."""
    with pytest.MonkeyPatch.context() as patched:
        for registry in REGISTRIES.values():
            registry.names()
            patched.setattr(registry, "_components", dict(registry._components))
        datasets.register("fake")(FakeDataset)
        trunks.register("linear_map")(Linear)
        yield


def task(target: str, **more: Any) -> dict[str, Any]:
    kind = {"binary": "binary", "real": {"name": "regression", "standardize": False}}[TARGETS[target]]
    return {"dataset": "fake", "target": target, "kind": kind, **more}


def experiment(tasks: dict[str, dict[str, Any]], **changes: Any) -> Experiment:
    """Return an experiment of two epochs with 5 steps each."""
    plain: dict[str, Any] = {
        "name": "fake",
        "datasets": {"fake": {"name": "fake"}},
        "tasks": tasks,
        "trunk": {"name": "mlp", "hidden": [8], "features": 6, "dropout": 0.2},
        "optimizer": {"name": "Adam", "lr": 0.01},
        "training": TRAINING,
    }
    return experiment_from_dict({**plain, **changes})
