"""Compatibility of regularizers and sharings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.errors import ConfigError
from mtlcli.registry import regularizers, sharings
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.specs import TrunkPass
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import SAME, batch
from tests.training.experiments import digits

ONE_TRUNK = ["aitm", "esmm", "hard", "mtan", "shared_private"]


@pytest.mark.parametrize("name", ["none", "cross_stitch"])
def test_regularizers_of_activations_need_a_single_trunk(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(digits(sharing=name, regularizers=[{"name": "l2"}, {"name": "reconstruction"}]))
    assert (
        "regularizers.1: needs a single trunk that all examples pass, which "
        f"`sharing: {name}` does not have. Sharings with one: {', '.join(ONE_TRUNK)}"
    ) in str(error.value)


@pytest.mark.parametrize("name", sharings.names())
def test_other_regularizers_support_every_sharing(name: str) -> None:
    terms = ["l1", "l2", "nuclear_norm", "orthogonality", "trace_norm_across_tasks",
             {"name": "multi_nuclear_norm", "layers": ["fc1"], "rank": 2}]  # fmt: skip
    terms += ["reconstruction"] if name in ONE_TRUNK else []
    options = {"trunk": {"name": "mlp", "hidden": [6], "features": 4}, "optimizer": {"name": "SGD", "lr": 0.1}}
    tasks = {**SAME, "other": SAME["digit"]}  # identical heads, for the trace norm
    datasets = {"a": {"name": "digits", "val": 0.2}}
    sharing: dict[str, Any] = {"name": name}
    if name in ("esmm", "aitm"):  # which need two binary tasks in order
        tasks["even"], sharing["order"] = SAME["parity"], ["parity", "even"]
    run = build(digits(datasets=datasets, tasks=tasks, sharing=sharing, regularizers=terms, **options))
    result = Step(run, make_optimizer(run))([batch(run, 0, 32)])
    assert result is not None
    assert result[0].losses.isfinite().all() and len(result[0].losses) == len(tasks) + len(terms) + (
        name == "aitm"
    )  # and its calibrator


def test_regularizer_without_a_trunk_supports_every_sharing() -> None:
    @regularizers.register("elsewhere")
    class Elsewhere(Regularizer):
        default_strength = 1.0
        sees_examples = True
        sees_trunk = False

        def __init__(self, subject: Subject) -> None:
            super().__init__()
            assert subject.shapes == {}
            self.own = nn.Parameter(torch.ones(()))

        def term(self, passes: Sequence[TrunkPass]) -> Tensor:
            assert passes == []
            return self.own.square()

    run = build(digits(sharing="none", regularizers=["elsewhere"]))
    result = Step(run, make_optimizer(run))([batch(run, 0, 8)])
    assert result is not None and float(result[0].losses[-1]) == 1.0
