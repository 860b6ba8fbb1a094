"""A small dataset with labels for the pixels of its images, shared by tests."""

from __future__ import annotations

from typing import Any

import torch

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.loader import Batch
from mtlcli.registry import datasets
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec
from mtlcli.training.run import Run

SIZE = (12, 8)
TASKS = {
    "part": {
        "dataset": "blobs",
        "target": "part",
        "kind": "segmentation",
        "head": {"name": "fcn", "channels": 3, "dropout": 0.0},
    },
    "height": {"dataset": "blobs", "target": "height", "kind": "regression"},
    "count": {"dataset": "blobs", "target": "count", "kind": "regression"},
}
UNET = {"name": "unet", "widths": [3, 4], "depth": 1}


class Blobs(Dataset):
    """Images of 12×8 with the targets `part` (class_map), `height` (real_map) and `count` (real)."""

    def describe(self) -> DatasetSpec:
        return DatasetSpec(
            input_shape=(2, *SIZE),
            targets={
                "part": TargetSpec("class_map", 3, missing=True),
                "height": TargetSpec("real_map", missing=True),
                "count": TargetSpec("real"),
            },
            main_target=None,
            splits=("train", "val", "test"),
            mean=(0.0,),
            std=(1.0,),
            state={},
        )

    def read(self, split: str) -> Examples:
        raise NotImplementedError("the tests make batches themselves")


def register() -> None:
    """Register the dataset; it is removed after the test."""
    datasets.register("blobs")(Blobs)


def blobs(**changes: Any) -> Experiment:
    """Return an experiment of three tasks on the dataset. changes: top-level keys."""
    plain: dict[str, Any] = {
        "name": "blobs",
        "datasets": {"blobs": {"name": "blobs"}},
        "tasks": TASKS,
        "trunk": UNET,
        "optimizer": {"name": "SGD", "lr": 0.1},
        "training": {"epochs": 1, "device": "cpu", "threads": 1},
    }
    return experiment_from_dict({**plain, **changes})


def batch(run: Run, start: int, stop: int) -> Batch:
    """Return rows of fixed random examples, of which the first has no `height`, in the precision of the model."""
    generator, rows = torch.Generator().manual_seed(0), slice(start, stop)
    like = next(run.model.parameters())
    inputs = torch.randn(6, 2, *SIZE, generator=generator)
    part = torch.randint(0, 3, (6, *SIZE), generator=generator)
    part[:, 0] = IGNORE_INDEX
    height = torch.randn(6, *SIZE, generator=generator)
    height[0] = height[1, :4] = torch.nan
    targets = {"part": part[rows], "height": height[rows].to(like), "count": inputs.mean((1, 2, 3))[rows].to(like)}
    counts: dict[str, float] = {
        "part": int((targets["part"] != IGNORE_INDEX).sum()),
        "height": int((~targets["height"].isnan()).sum()),
        "count": stop - start,
    }
    tasks = run.sources
    return Batch({"blobs": inputs[rows].to(like)}, {t: targets[t] for t in tasks}, {t: counts[t] for t in tasks})
