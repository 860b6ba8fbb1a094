"""Properties of every task kind with every type of target it accepts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mtlcli.registry import kinds
from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.tasks.labels import kind, measured, model_outputs, target_labels

SIZES = {"classes": 2, "binary": 1, "multilabel": 3, "real": 1, "tags": 2, "text": 1}
SIZES |= {"class_map": 2, "binary_map": 1, "real_map": 2, "depth_map": 1, "normal_map": 3}
PAIRS = [
    (name, accepted)
    for name in kinds.names()
    for accepted in kinds[name].target.accepts  # type: ignore[attr-defined]
    if not kinds[name].target.generates  # type: ignore[attr-defined]  (the labels of `generation` are tokens)
]
every_pair = pytest.mark.parametrize(("name", "accepted"), PAIRS)
half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


OPTIONS = {("similarity", "real"): {"scale": [0, 1]}}  # options without which a kind has no default


def make(name: str, accepted: str, missing: bool = True) -> TaskKind:
    options = {"prompt": "{x}"} if name == "generation" else OPTIONS.get((name, accepted), {})
    return kind(name, TargetSpec(accepted, SIZES[accepted], missing=missing), **options)  # type: ignore[arg-type]


def labels(name: str, accepted: str, rows: int) -> Tensor:
    target = target_labels(accepted, rows, SIZES[accepted])
    return torch.ones(rows) if (name, accepted) == ("contrastive", "binary") else target


def without(target: Tensor, rows: slice) -> Tensor:
    target = target.clone()
    target[rows] = float("nan") if target.is_floating_point() else IGNORE_INDEX
    return target


@every_pair
def test_declared_metrics_are_computed(name: str, accepted: str) -> None:
    task = make(name, accepted)
    assert task.primary in task.directions and task.directions["loss"] == "min"
    got = measured(task, model_outputs(task, 20), labels(name, accepted, 20))
    assert list(got) == [metric for metric in task.directions if metric != "loss"]
    assert all(type(value) is float and math.isfinite(value) for value in got.values())
    assert all(
        task.directions[metric] == "max" and value <= 1 for metric, value in got.items() if metric in task.bounded
    )
    declared = {**task.directions, **{metric: about.direction for metric, about in task.collected.items()}}
    best_is_1 = {metric.partition("_per_")[0] for metric, way in declared.items() if way == "max"}
    assert best_is_1 == set(task.bounded)
    assert all(task.directions[metric] == "min" for metric in task.negligible_errors(got))


@every_pair
def test_masked_and_unmasked_losses_agree(name: str, accepted: str) -> None:
    masked, plain = make(name, accepted), make(name, accepted, missing=False)
    logits, target = model_outputs(plain, 20), labels(name, accepted, 20)
    torch.testing.assert_close(masked.loss(logits, target), plain.loss(logits, target))
    assert measured(masked, logits, target) == measured(plain, logits, target)


@every_pair
def test_unlabelled_rows_have_no_effect(name: str, accepted: str) -> None:
    task = make(name, accepted)
    logits, target = model_outputs(task, 20), without(labels(name, accepted, 20), slice(5, 9))
    extremes = torch.tensor([float("inf"), -float("inf"), float("nan"), 1e30])
    logits[5:9] = extremes.view(-1, *[1] * (logits.ndim - 1))
    logits.requires_grad_()
    kept = [row for row in range(20) if not 5 <= row < 9]
    loss = task.loss(logits, target)
    loss.backward()
    torch.testing.assert_close(loss, task.loss(logits[kept], target[kept]))
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert not logits.grad[5:9].any() and logits.grad[kept].all()
    expected = measured(task, logits[kept].detach(), target[kept])
    assert measured(task, logits.detach(), target) == pytest.approx(expected, rel=1e-12)


@every_pair
def test_batch_without_labels(name: str, accepted: str) -> None:
    task = make(name, accepted)
    logits, target = model_outputs(task, 6).requires_grad_(), without(labels(name, accepted, 6), slice(None))
    loss = task.loss(logits, target)
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and not logits.grad.any()
    assert all(math.isnan(value) for value in measured(task, logits.detach(), target).values())


@every_pair
def test_metrics_without_batches_are_nan(name: str, accepted: str) -> None:
    task = make(name, accepted)
    assert all(math.isnan(value) for value in task.metrics(torch.device("cpu")).compute().values())


@half
@every_pair
@pytest.mark.parametrize("missing", [False, True])
def test_half_precision_predictions_are_evaluated_in_float32(
    name: str, accepted: str, missing: bool, dtype: torch.dtype
) -> None:
    task = make(name, accepted, missing)
    logits, target = model_outputs(task, 20).to(dtype), labels(name, accepted, 20)
    loss = task.loss(logits, target)
    assert loss.dtype == torch.float32 and torch.equal(loss, task.loss(logits.float(), target))
    assert measured(task, logits, target) == measured(task, logits.float(), target)


@every_pair
@pytest.mark.parametrize("missing", [False, True])
def test_loss_does_not_synchronize_with_the_device(name: str, accepted: str, missing: bool) -> None:
    """Tensors on `meta` have no values: reading one, or a shape that depends on one, fails."""
    task = make(name, accepted, missing)
    logits = model_outputs(task, 6).to("meta").requires_grad_()
    task.loss(logits, labels(name, accepted, 6).to("meta")).backward()
    assert logits.grad is not None


@pytest.mark.parametrize("name", kinds.names())
def test_other_types_of_targets_are_rejected(name: str) -> None:
    refused = sorted(set(SIZES) - set(kinds[name].target.accepts))  # type: ignore[attr-defined]
    assert refused
    for other in refused:
        with pytest.raises(ValueError, match="needs a target of type"):
            make(name, other)


def test_kinds_with_a_scale_are_gaussian() -> None:
    gaussian = [name for name in kinds.names() if kinds[name].target.likelihood == "gaussian"]  # type: ignore[attr-defined]
    assert gaussian == ["depth", "normals", "quantile", "regression", "similarity"]


@every_pair
def test_metrics_synchronize_with_the_device_only_in_compute(name: str, accepted: str) -> None:
    task = make(name, accepted)
    metrics = task.metrics(torch.device("meta"))
    for _ in range(2):
        metrics.update(model_outputs(task, 6).to("meta"), labels(name, accepted, 6).to("meta"))


@pytest.mark.parametrize(
    ("name", "accepted"), [pair for pair in PAIRS if "accuracy" in kinds[pair[0]].target.directions]
)
def test_nan_prediction_is_wrong(name: str, accepted: str) -> None:
    task, target = make(name, accepted), labels(name, accepted, 20)
    logits = torch.full_like(model_outputs(task, 20), math.nan)
    assert measured(task, logits, target)["accuracy"] == 0.0
    if accepted != "multilabel":
        logits[:5] = 1.0 if task.outputs == 1 else torch.tensor([0.0, 1.0])
        assert measured(task, logits, target)["accuracy"] == float(target[:5].sum()) / target.numel()
