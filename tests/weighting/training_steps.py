"""Steps of tiny runs with prescribed Jacobians: float32 rows from backward passes of a real `Step`.

The loss of task t is the mean over the examples of c_tb h_t·f(x_b), plus a constant that makes its value positive.
Equal, opposed, zero, … coefficients c (the targets) and heads h give equal, opposed, zero, … gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtlcli.config import experiment_from_dict
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.loader import Batch
from mtlcli.registry import datasets, kinds, weightings
from mtlcli.specs import DatasetSpec, TargetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from mtlcli.weighting.base import GradientWeighting, Weighting

WIDTH, FEATURES = 6, 6
OPTIONS: dict[str, dict[str, Any]] = {"torchjd": {"aggregator": "UPGrad"}, "relation": {"negative": "allow"}}


class MadeUp(Dataset):
    """A dataset of shapes only; the tests create the batches."""

    def __init__(self, *, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks

    def describe(self) -> DatasetSpec:
        targets = {f"t{i}": TargetSpec("real") for i in range(self.tasks)}
        return DatasetSpec((1, 1, WIDTH), targets, None, ("train", "val"), (0.0,), (1.0,), {})

    def read(self, split: str, seed: int) -> Examples:
        raise NotImplementedError


class Pull(TaskKind):
    """A loss with a given value (`level`) and the gradient of the mean of target × prediction."""

    accepts, directions, primary, outputs = ("real",), {"loss": "min"}, "loss", 1

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        product = (prediction[:, 0].float() * target).mean()
        return product - product.detach() + self.level

    level = 1.0

    def metrics(self, device: torch.device) -> Any:
        return NoMetrics()


class NoMetrics:
    """Metrics of a task with no metric but its loss."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        return

    def compute(self) -> dict[str, float]:
        return {}


def register() -> None:
    """Register the dataset and the kind; they are removed after the test."""
    datasets.register("made_up")(MadeUp)
    kinds.register("pull")(Pull)


@dataclass
class Case:
    """A problem: heads [T, FEATURES], coefficients [T, B], inputs [B, WIDTH]."""

    name: str
    heads: Tensor
    coefficients: Tensor
    inputs: Tensor


def cases(count: int, seed: int) -> Iterator[Case]:
    """Yield Jacobians of every kind with `count` rows."""
    generator = torch.Generator().manual_seed(1000 * count + seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def case(name: str, size: int = 16) -> Case:
        return Case(name, normal(count, FEATURES), normal(count, size), normal(size, WIDTH))

    def copied(name: str, factors: Tensor, noise: float = 0.0) -> Case:
        """Every row a multiple of the first one, with noise."""
        result = case(name)
        result.heads[:] = result.heads[0]
        result.coefficients[:] = factors[:, None] * result.coefficients[0]
        result.coefficients *= 1 + noise * normal(count, 16)
        return result

    yield case("random")
    yield case("batch of one", 1)
    yield case("batch of two", 2)
    yield copied("duplicates", torch.ones(count))
    yield copied("near duplicates", torch.ones(count), 1e-6)
    yield copied("nearly alike", torch.ones(count), 1e-3)
    yield copied("rank one of both signs", normal(count))
    opposed = case("opposed, of unequal norm")
    opposed.heads[-1], opposed.coefficients[-1] = opposed.heads[0], -0.99 * opposed.coefficients[0]
    yield opposed
    nearly = case("nearly opposed")
    nearly.heads[-1] = nearly.heads[0]
    nearly.coefficients[-1] = -0.9 * nearly.coefficients[0] * (1 + 1e-3 * normal(16))
    yield nearly
    stationary = case("a combination is zero")
    stationary.heads[:] = stationary.heads[0]
    stationary.coefficients[-1] = -(torch.rand(count, generator=generator)[:-1] @ stationary.coefficients[:-1])
    yield stationary
    zero = case("zero rows")
    zero.coefficients[::2] = 0
    yield zero
    everything = case("all rows zero")
    everything.heads[:] = 0
    yield everything
    unequal = case("norms of 1e-4 to 1e4")
    unequal.coefficients *= torch.logspace(-4, 4, count)[:, None]
    yield unequal
    tiny = case("tiny")
    tiny.coefficients *= 1e-12
    yield tiny
    huge = case("huge")
    huge.coefficients *= 1e12
    yield huge


class Runner:
    """A run of a weighting with `count` tasks and constant parameters (learning rate 0)."""

    def __init__(self, name: str, count: int) -> None:
        names = [f"t{i}" for i in range(count)]
        matrix = [[float(i == j) + 0.5 for j in range(count)] for i in range(count)]
        options = {**OPTIONS.get(name, {}), **({"matrix": matrix} if name == "relation" else {})}
        experiment = experiment_from_dict({
            "name": "tiny", "datasets": {"d": {"name": "made_up", "tasks": count}},
            "tasks": {task: {"dataset": "d", "target": task, "kind": "pull"} for task in names},
            "trunk": {"name": "mlp", "hidden": [12], "features": FEATURES, "dropout": 0.0},
            "weighting": {"name": name, **options}, "optimizer": {"name": "SGD", "lr": 0.0},
            "training": {"device": "cpu", "threads": 1},
        })  # fmt: skip
        self.run = build(experiment)
        self.run.model.train()
        self.step = Step(self.run, make_optimizer(self.run))
        self.losses = torch.linspace(0.5, 1.5, count) if count > 1 else torch.ones(1)
        for task, level in zip(names, self.losses.tolist(), strict=True):
            self.run.kinds[task].level = level  # type: ignore[attr-defined]
        self.weighting: Weighting = self.run.weighting
        self.start = {key: value.clone() if isinstance(value, Tensor) else value
                      for key, value in self.weighting.state_dict().items()}  # fmt: skip

    def __call__(self, case: Case) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run one step, from the first state of the weighting if `start` is set.

        Returns (weights [t], J [samples, t, P], update [P]) of the run. J is None if the weighting needs no
        gradients, the update if it is not computed from the rows of J.
        """
        if self.start:
            self.weighting.load_state_dict(
                {k: v.clone() if isinstance(v, Tensor) else v for k, v in self.start.items()}
            )
        with torch.no_grad():
            for task, head in zip(self.run.kinds, case.heads, strict=True):
                self.run.model.heads[task].weight.copy_(head[None])  # type: ignore[operator, union-attr]
        batch = Batch(
            {"d": case.inputs[:, None, None]},
            dict(zip(self.run.kinds, case.coefficients, strict=True)),
            dict.fromkeys(self.run.kinds, len(case.inputs)),
        )
        result = self.step([batch])
        assert result is not None
        if not isinstance(self.weighting, GradientWeighting):
            return result[0].weights, None, None
        jacobians: Any = self.step.backward.jacobians  # type: ignore[attr-defined]
        rows = jacobians.rows.matrix.view(jacobians.samples, len(case.heads), -1).clone()
        last = self.weighting.gradients[0] == "last_layer"
        separate = jacobians.samples > 1 or last
        return result[0].weights, rows, None if separate else jacobians.update.matrix[0].clone()


def names() -> list[str]:
    return weightings.names()
