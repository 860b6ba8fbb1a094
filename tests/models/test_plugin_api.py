"""A sharing and a head of a plugin, written with the exported names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtlcli.models import Head, MakeHead, MakeTrunk, Sharing, SharingRecord, SharingStats, Trunk
from mtlcli.registry import heads, sharings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import SAME, batch
from tests.training.experiments import digits


class Scaled(Sharing):
    """One trunk, and for each task a learned scale of its features."""

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str], *, scale: float = 1.0):
        super().__init__(make_trunk, make_head, inputs)
        self.trunk = make_trunk()
        self.scales = nn.ParameterDict({task: torch.tensor(scale) for task in inputs})
        self.heads.update({task: make_head(task, self.trunk.features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {"trunk": self.trunk}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        features = {alias: self.trunk(x) for alias, x in inputs.items()}
        for task in alias_of if record.stats is not None else ():
            record.stats.add(task, "scale", self.scales[task], len(inputs[alias_of[task]]))
        return {task: self.scales[task] * features[alias] for task, alias in alias_of.items()}


class Negated(Head):
    """A linear layer, negated."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, x: Tensor, /) -> Tensor:
        return -self.linear(x)


def test_sharing_and_head_of_a_plugin() -> None:
    sharings.register("scaled")(Scaled)
    heads.register("negated")(Negated)
    tasks = {task: {**entry, "head": "negated"} for task, entry in SAME.items()}
    run = build(
        digits(
            tasks=tasks,
            datasets={entry["dataset"]: {"name": "digits", "val": 0.2} for entry in SAME.values()},
            sharing={"name": "scaled", "scale": 2.0},
            trunk={"name": "mlp", "hidden": [6], "features": 4},
        )
    )
    whole, stats = batch(run, 0, 8), SharingStats()
    predictions = run.model(whole.inputs, None, SharingRecord(stats=stats))
    assert list(predictions) == list(SAME)
    assert stats.means() == {task: {"scale": 2.0} for task in SAME}
    assert Step(run, make_optimizer(run))([whole]) is not None
