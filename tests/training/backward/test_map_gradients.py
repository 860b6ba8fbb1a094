"""Gradient-level backward passes of tasks on maps, against plain autograd and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.models.representations import pool_representation
from mtlcli.registry import weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.training.backward.test_blockwise import Double
from tests.training.backward.test_gradient_backward import WEIGHTS, Spy, Whole, expected, flat
from tests.training.map_toys import TASKS, UNET, batch, blobs, register

MAPS = {task: TASKS[task] for task in ("part", "height")}
SEGNET = {"name": "segnet", "widths": [2, 3]}
TRUNKS = [pytest.param(UNET, id="unet"), pytest.param(SEGNET, id="segnet", marks=pytest.mark.matrix)]
MATRIX = ["hard", "cross_stitch", "ple", "shared_private"]


@pytest.fixture(autouse=True)
def toys() -> None:
    register()
    weightings.register("spy")(Spy)
    weightings.register("whole")(Whole)


def make(gradients: str, name: str = "spy", **changes: Any) -> tuple[Run, Step]:
    """Return a run in float64."""
    run = build(blobs(weighting={"name": name, "gradients": gradients}, **changes))
    run.model.double().train()
    for part in run.model.sharing.trunks().values():
        part.encoder = Double()
    return run, Step(run, make_optimizer(run))


def feature_rows(run: Run, tasks: dict[str, Any], pooled: bool) -> Tensor:
    """Return the tasks' gradients by the map [B, F, h, w], and by its mean for tasks on vectors if `pooled`."""
    whole, sharing = batch(run, 0, 6), run.model.sharing
    features = sharing.trunk(run.model.prepare("blobs", whole.inputs["blobs"]))  # type: ignore[union-attr]
    vector = pool_representation(features, "mean")
    rows = []
    for task, kind in run.kinds.items():
        is_map = kind.predicts == "map"
        given = (vector if not pooled else vector.detach().requires_grad_()) if not is_map else features
        loss = kind.loss(sharing.heads[task](given), whole.targets[task])
        by_map = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)[0]
        by_map = torch.zeros_like(features) if by_map is None else by_map
        row = [by_map.flatten()]
        if pooled and "count" in tasks:
            row.append(torch.zeros_like(vector).flatten() if is_map else torch.autograd.grad(loss, given)[0].flatten())
        rows.append(torch.cat(row))
    return torch.stack(rows)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("gradients", ["jacobian", "blockwise", "features", "sequence", "last_layer"])
@pytest.mark.parametrize("tasks", [MAPS, TASKS], ids=["maps", "maps and a vector"])
def test_gramian_and_update_match_plain_autograd(trunk: Any, gradients: str, tasks: Any) -> None:
    run, step = make(gradients, trunk=trunk, tasks=tasks)
    whole = batch(run, 0, 6)
    shared: Any = run.model.shared_parameters()
    rows = expected(run, whole, shared)
    measured = rows
    if gradients in ("features", "sequence"):
        measured = feature_rows(run, tasks, pooled=gradients == "features")
    elif gradients == "last_layer":
        measured = expected(run, whole, run.model.last_shared_layer())  # type: ignore[arg-type]
    result = step([whole])
    assert result is not None
    gramian, _, present = run.weighting.seen  # type: ignore[misc]
    torch.testing.assert_close(gramian, measured @ measured.T)
    assert present == list(range(len(tasks)))
    torch.testing.assert_close(flat(shared), WEIGHTS[: len(tasks)] @ rows)


@pytest.mark.parametrize("sharing", ["mtan", *(pytest.param(name, marks=pytest.mark.matrix) for name in MATRIX)])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_blocks_of_stages_with_skip_connections(sharing: str, trunk: Any) -> None:
    """A block may receive gradients from several later ones."""
    results = []
    for gradients in ("jacobian", "blockwise"):
        torch.manual_seed(0)
        run, step = make(gradients, trunk=trunk, sharing=sharing, tasks=MAPS)
        for _ in range(2):
            assert step([batch(run, 0, 6)]) is not None
        assert step.backward.route.startswith("blockwise") == (gradients == "blockwise")
        seen: Any = run.weighting.seen
        results.append([seen[0], *(p.grad for p in run.model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_the_jacobian_by_features_has_an_entry_for_each_position() -> None:
    run, step = make("features", "whole", tasks=MAPS)
    whole = batch(run, 0, 6)
    rows = feature_rows(run, MAPS, pooled=True)
    assert step([whole]) is not None
    by_position = run.weighting.seen.view(2, 6, 12, 8, 3)  # type: ignore[operator]  # channels-last
    torch.testing.assert_close(by_position.permute(0, 1, 4, 2, 3).reshape(2, -1), rows)


def test_accumulated_batches_make_the_step_of_the_whole_batch() -> None:
    updates = []
    for cuts in ([(0, 6)], [(0, 1), (1, 3), (3, 6)]):
        torch.manual_seed(0)
        run, step = make("jacobian", tasks=MAPS, trunk={**UNET, "norm": "group"})
        for module in run.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.Dropout):
                module.eval()
        assert step([batch(run, *cut) for cut in cuts]) is not None
        updates.append([run.weighting.seen[0], *(p.grad for p in run.model.parameters())])  # type: ignore[index]
    for ours, theirs in zip(*updates, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # the loss of `regression` is float32
