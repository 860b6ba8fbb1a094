"""A toy problem of two targets that compete for one feature, trained by the steps of a run on its full batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtlcli.config import experiment_from_dict
from mtlcli.data.loader import Batch
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import datasets, trunks
from mtlcli.specs import Shape
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from tests.weighting.training_steps import MadeUp

ROWS, WIDTH = 32, 6
OPTIONS: dict[str, dict[str, Any]] = {
    "torchjd": {"aggregator": "MGDA"}, "relation": {"matrix": [[1.0, 0.5], [0.5, 1.0]]}, "stch": {"warmup_epochs": 1},
}  # fmt: skip


class Single(Trunk):
    """A trunk with a single linear feature."""

    def __init__(self, input_shape: Shape) -> None:
        super().__init__()
        self.linear, self.features = torch.nn.Linear(math.prod(input_shape), 1), 1

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"linear": lambda x: self.linear(x.flatten(1))}


def register() -> None:
    """Register the dataset and the trunk of the toy problem; they are removed after the test."""
    datasets.register("made_up")(MadeUp)
    trunks.register("single")(Single)


class Toy:
    """Regression of two functions of the same inputs with a single shared feature."""

    def __init__(
        self, name: str, seed: int = 0, options: Mapping[str, Any] | None = None, precision: str = "fp32"
    ) -> None:
        experiment = experiment_from_dict({
            "name": "toy", "seed": seed, "datasets": {"d": {"name": "made_up", "tasks": 2}},
            "tasks": {task: {"dataset": "d", "target": task, "kind": "regression"} for task in ("t0", "t1")},
            "trunk": "single",
            "weighting": {"name": name, **(options or OPTIONS.get(name, {}))}, "optimizer": {"name": "SGD", "lr": 0.05},
            "training": {"device": "cpu", "threads": 1, "precision": precision},
        })  # fmt: skip
        self.run = build(experiment)
        self.run.model.train()
        self.step = Step(self.run, make_optimizer(self.run))
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(ROWS, 1, 1, WIDTH, generator=generator)
        first, second = x[:, 0, 0, 0], x[:, 0, 0, 1]
        self.batch = Batch({"d": x}, {"t0": first + 0.5 * second, "t1": 2 * second - first}, {"t0": ROWS, "t1": ROWS})

    def train(self, steps: int) -> None:
        """Train for a number of full-batch steps, 10 per epoch; raise DivergedError if a value is not finite."""
        for number in range(1, steps + 1):
            result = self.step([self.batch], number=number)
            assert result is not None
            if number % 10 == 0:
                self.run.weighting.end_epoch(result[0].losses[:2])

    def gradients(self) -> Tensor:
        """Return the Jacobian [2, P] of the losses with respect to the shared parameters, in float64."""
        shared = list(self.run.model.shared_parameters())
        predictions = self.run.model(self.batch.inputs, ["t0", "t1"])
        rows = []
        for task, kind in self.run.kinds.items():
            loss = kind.loss(predictions[task], self.batch.targets[task])
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]))
        return torch.stack(rows).double()

    def stationarity(self) -> tuple[float, float]:
        """Return the norm of the shortest convex combination of the gradients, and that of the longest gradient."""
        first, second = self.gradients()
        difference = first - second
        share = ((second @ (second - first)) / (difference @ difference)).clamp(0, 1)
        return float((share * first + (1 - share) * second).norm()), float(max(first.norm(), second.norm()))
