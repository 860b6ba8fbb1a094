"""Optimizer step: accumulation, missing labels, clipping, precision."""

from typing import Any

import pytest
import torch

from mtlcli.data.loader import Batch
from mtlcli.registry import weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.training.experiments import digits, training

NO_DROPOUT = {"name": "mlp", "hidden": [16], "features": 8}
# without `sdmgrad`, which divides every batch into samples, and `torchjd`, which wraps many methods
OPTIONS: dict[str, dict[str, Any]] = {"stch": {"warmup_epochs": 1}, "relation": {"matrix": [[1.0, 0.5], [0.5, 2.0]]}}
WEIGHTINGS = [{"name": name, **OPTIONS[name]} if name in OPTIONS else name for name in weightings.names()
              if name not in ("sdmgrad", "torchjd")]  # fmt: skip


def make(**changes: Any) -> tuple[Run, Step]:
    run = build(digits(**{"trunk": NO_DROPOUT, "optimizer": {"name": "SGD", "lr": 0.1}, **changes}))
    return run, Step(run, make_optimizer(run))


def batch(start: int, stop: int, missing: tuple[int, ...] = ()) -> Batch:
    """Return rows of fixed random examples; those in `missing` have no digit."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 17, (64, 1, 8, 8), generator=generator, dtype=torch.uint8)
    digit = torch.randint(0, 10, (64,), generator=generator)
    digit[list(missing)] = -100
    ink = 0.3056 + 0.0339 * torch.randn(64, generator=generator)
    cut = slice(start, stop)
    counts = {"digit": int((digit[cut] != -100).sum()), "ink": stop - start}
    return Batch({"digits": inputs[cut]}, {"digit": digit[cut], "ink": ink[cut]}, counts)


def parameters(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in [*run.model.parameters(), *run.weighting.parameters()]])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("missing", [(), (0, 3, 40), tuple(range(20)), tuple(range(64))])
def test_accumulated_batches_match_one_large_batch(
    weighting: str | dict[str, object], missing: tuple[int, ...]
) -> None:
    whole_run, whole = make(weighting=weighting)
    parts_run, parts = make(weighting=weighting)
    for run in (whole_run, parts_run):  # only a dataset that declares it may miss labels
        object.__setattr__(run.kinds["digit"].target, "missing", True)
        run.weighting.end_epoch(torch.ones(2))  # past the first epoch, in which a method may behave differently
    for _ in range(3):
        single = whole([batch(0, 64, missing)])
        several = parts([batch(0, 20, missing), batch(20, 27, missing), batch(27, 64, missing)])
    torch.testing.assert_close(parameters(parts_run), parameters(whole_run), rtol=1e-4, atol=1e-6)
    assert single is not None
    assert several is not None
    torch.testing.assert_close(several[0].losses, single[0].losses)
    # float32 sums over 64 examples in another order, 64 eps = 8e-6, three steps of it, and a solver may magnify that
    torch.testing.assert_close(several[0].weights, single[0].weights, rtol=1e-4, atol=1e-4)
    assert several[1] == single[1] == [64 - len(missing), 64]


def test_a_step_without_any_label_changes_nothing() -> None:
    run, step = make(tasks={"digit": {"dataset": "digits", "target": "digit", "kind": "classification"}})
    before = parameters(run)
    empty = batch(0, 4, (0, 1, 2, 3))
    assert step([Batch(empty.inputs, {"digit": empty.targets["digit"]}, {"digit": 0})]) is None
    assert torch.equal(parameters(run), before)


def test_clipping_bounds_the_norm_of_the_whole_gradient() -> None:
    run, step = make(training=training(clip_norm=1e-3))
    before = parameters(run)
    step([batch(0, 64)])
    assert (parameters(run) - before).norm() == pytest.approx(0.1 * 1e-3, rel=1e-3)  # SGD: lr × gradient


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_near_full_precision(precision: str) -> None:
    exact_run, exact = make()
    low_run, low = make(training=training(precision=precision))
    for start in range(0, 48, 16):
        exact([batch(start, start + 16)])
        low([batch(start, start + 16)])
    moved = parameters(exact_run) - parameters(make()[0])
    assert (parameters(low_run) - parameters(exact_run)).norm() < 0.05 * moved.norm()


def test_a_frozen_trunk_is_unchanged_and_the_heads_learn() -> None:
    run, step = make(trunk={**NO_DROPOUT, "frozen": True})
    names = [name for name, _ in run.model.named_parameters()]
    before = [p.detach().clone() for p in run.model.parameters()]
    run.model.train()
    step([batch(0, 64)])
    for name, old, new in zip(names, before, run.model.parameters(), strict=True):
        assert torch.equal(old, new.detach()) == ("trunk" in name), name


def test_parameters_of_a_weighting_are_trained_without_weight_decay() -> None:
    run = build(digits(weighting="uncertainty", optimizer={"name": "SGD", "lr": 0.1, "weight_decay": 0.5}))
    model, own = make_optimizer(run).param_groups
    assert model["weight_decay"] == 0.5
    assert own["weight_decay"] == 0.0
    assert [id(p) for p in own["params"]] == [id(p) for p in run.weighting.parameters()]
