"""Schedulers: length, direction, and options that are refused before the first step."""

import csv
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mtlcli.errors import ConfigError
from mtlcli.registry import schedulers
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.assembly.schedules import Schedule, idle_note, make_schedule
from mtlcli.training.checkpoint.file import plain
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training


@pytest.mark.parametrize(("direction", "values", "reduced"), [
    ("max", [0.9] * 6, True), ("max", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], False),
    ("min", [0.9] * 6, True), ("min", [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], False),
])  # fmt: skip
def test_plateau_follows_the_direction_of_the_monitored_metric(
    direction: str, values: list[float], reduced: bool
) -> None:
    run = build(digits(scheduler={"name": "ReduceLROnPlateau", "patience": 2}, optimizer={"name": "SGD", "lr": 1.0}))
    optimizer = make_optimizer(run)
    schedule = make_schedule(run, optimizer, 6, direction)
    for value in values:
        schedule.after_epoch(value)
    assert (optimizer.param_groups[0]["lr"] < 1.0) == reduced


@pytest.mark.parametrize(("scheduler", "message"), [
    ({"name": "ReduceLROnPlateau", "interval": "step"}, "interval: epoch"),
    ({"name": "StepLR", "step_size": 0}, "scheduler"),
    ({"name": "CyclicLR", "base_lr": 0.1, "max_lr": 1.0, "step_size_up": 0}, "scheduler"),
    ({"name": "CosineAnnealingLR", "T_max": 0}, "scheduler"),
])  # fmt: skip
def test_invalid_schedulers_are_refused(scheduler: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(digits(scheduler=scheduler, optimizer={"name": "SGD", "lr": 1.0}))


def test_schedule_shorter_than_the_run_is_refused(tmp_path: Path) -> None:
    experiment = digits(scheduler={"name": "OneCycleLR", "max_lr": 0.01, "total_steps": 7})
    with pytest.raises(ConfigError, match="total_steps is 7, but the run has 12"):
        Trainer(build(experiment), tmp_path / "run")
    assert not (tmp_path / "run").exists()


OPTIONS: dict[str, dict[str, Any]] = {
    "ConstantLR": {"total_iters": 3}, "CosineAnnealingLR": {"eta_min": 1e-4}, "ExponentialLR": {"gamma": 0.8},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3, "cycle_momentum": True},
    "LinearLR": {"total_iters": 4}, "MultiStepLR": {"milestones": [2, 5, 11]}, "OneCycleLR": {"max_lr": 0.2},
    "PolynomialLR": {"power": 2.0}, "ReduceLROnPlateau": {"patience": 0, "factor": 0.5},
    "StepLR": {"step_size": 2, "gamma": 0.5}, "warmup_cosine": {"warmup": 0.25}, "warmup_linear": {"warmup": 5},
}  # fmt: skip
STEPS = 4  # per epoch


def create_schedule(name: str, interval: str, epochs: int, **options: Any) -> tuple[Schedule, torch.optim.Optimizer]:
    """Return a schedule and its optimizer of two groups."""
    entry = {"name": name, "interval": interval, **OPTIONS[name], **options}
    experiment = digits(scheduler=entry, training=training(epochs=epochs))
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": lr} for lr in (0.1, 0.02)]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    return make_schedule(SimpleNamespace(experiment=experiment), optimizer, STEPS, "min"), optimizer  # type: ignore[arg-type]


def collect_rates(schedule: Schedule, optimizer: torch.optim.Optimizer, count: int) -> list[tuple[float, float]]:
    """Return (learning rate, momentum) of every group in each of the next `count` steps of the schedule."""
    values = []
    for _ in range(count):
        values += [(group["lr"], group["momentum"]) for group in optimizer.param_groups]
        optimizer.step()
        schedule.after_step()
        schedule.after_epoch(1.0)
    return values


def intervals(name: str) -> list[str]:
    if name == "ReduceLROnPlateau":
        return ["epoch"]
    return ["step"] if name.startswith("warmup") else ["epoch", "step"]


EVERY = [(name, interval) for name in schedulers.names() for interval in intervals(name)]


@pytest.mark.parametrize(("name", "interval"), EVERY)
@pytest.mark.parametrize(("before", "after"), [(3, 7), (3, 3), (7, 4)])
def test_resumed_schedule_has_the_rates_of_a_run_of_the_new_length(
    name: str, interval: str, before: int, after: int
) -> None:
    length = STEPS if interval == "step" else 1
    done = 3 * length  # three epochs
    first, optimizer = create_schedule(name, interval, before)
    collect_rates(first, optimizer, done)
    saved, groups = first.state_dict(), optimizer.state_dict()
    resumed, optimizer = create_schedule(name, interval, after)
    optimizer.load_state_dict(groups)
    resumed.load_state_dict(saved)
    left = after * length - done
    expected = collect_rates(*create_schedule(name, interval, after), after * length)
    assert collect_rates(resumed, optimizer, left) == expected[len(expected) - 2 * left :]  # bitwise


@pytest.mark.parametrize(("name", "interval"), EVERY)
def test_rates_match_torch(name: str, interval: str) -> None:
    length = 7 * (STEPS if interval == "step" else 1)
    ours = collect_rates(*create_schedule(name, interval, 7), length)
    schedule, optimizer = create_schedule(name, interval, 7)
    theirs = []
    for _ in range(length):
        theirs += [(group["lr"], group["momentum"]) for group in optimizer.param_groups]
        optimizer.step()
        schedule.scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))  # type: ignore[union-attr]
    assert len(theirs) == len(ours)
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual == pytest.approx(expected, rel=1e-12, abs=1e-16)  # torch's recursion rounds in every step


@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_schedule_resumes_bitwise(steps_before: int) -> None:
    for name, interval in EVERY:
        first, optimizer = create_schedule(name, interval, 7)
        collect_rates(first, optimizer, steps_before)
        resumed, other = create_schedule(name, interval, 7)
        other.load_state_dict(optimizer.state_dict())
        with warnings.catch_warnings(action="error"):
            resumed.load_state_dict(first.state_dict())
        assert plain(resumed.state_dict()) == plain(first.state_dict())
        assert collect_rates(resumed, other, 2) == collect_rates(first, optimizer, 2)


@pytest.mark.parametrize(("warmup", "steps"), [(0.25, 7), (0.06, 2), (0.0, 0), (5, 5), (0, 0), (28, 28), (0.5, 14)])
def test_warmup_and_decay_match_the_formulas(warmup: float, steps: int) -> None:
    """The formulas of transformers' schedules, for 28 steps."""
    decays = {"warmup_linear": lambda p: 1 - p, "warmup_cosine": lambda p: (1 + math.cos(math.pi * p)) / 2}
    for name, decay in decays.items():
        learning_rates = [rate for rate, _ in collect_rates(*create_schedule(name, "step", 7, warmup=warmup), 28)]
        factors = [n / steps if n < steps else decay((n - steps) / (28 - steps)) for n in range(28)]
        assert learning_rates == pytest.approx([rate * factor for factor in factors for rate in (0.1, 0.02)], abs=1e-15)


@pytest.mark.parametrize(("name", "option", "least"), [
    ("StepLR", "step_size", 1), ("CosineAnnealingLR", "T_max", 1), ("PolynomialLR", "total_iters", 0),
    ("CosineAnnealingWarmRestarts", "T_0", 1), ("ReduceLROnPlateau", "patience", 0), ("OneCycleLR", "total_steps", 1),
])  # fmt: skip
def test_negative_number_of_steps_is_refused(name: str, option: str, least: int) -> None:
    """Torch accepts it; StepLR would then raise the rate."""
    with pytest.raises(ConfigError, match=rf"^scheduler\.{option}: expected an integer ≥ {least}.*, found -2"):
        digits(scheduler={"name": name, **OPTIONS[name], option: -2})


@pytest.mark.parametrize(("scheduler", "noted"), [
    (None, True), ("CosineAnnealingLR", True), ({"name": "OneCycleLR", "max_lr": 0.01}, False),
])  # fmt: skip
def test_learning_rate_of_0_is_noted(scheduler: Any, noted: bool) -> None:
    experiment = digits(scheduler=scheduler, optimizer={"name": "Adam", "lr": 0.0})
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=0.0)
    schedule = make_schedule(SimpleNamespace(experiment=experiment), optimizer, STEPS, "min")  # type: ignore[arg-type]
    expected = "optimizer.lr is 0, so nothing is trained" if noted else None
    assert idle_note(schedule, experiment, 0, STEPS) == expected
    partly = digits(scheduler=scheduler, optimizer={"name": "Adam", "lr": 0.0, "groups": {"heads": {"lr": 0.1}}})
    assert idle_note(Schedule(None, per_step=False), partly, 0, STEPS) is None


@pytest.mark.parametrize(("scheduler", "message"), [
    ({"name": "warmup_linear", "warmup": 13}, "a warm-up of 13 steps is longer than the run, which has 12"),
    ({"name": "warmup_cosine", "interval": "epoch"}, "counts optimizer steps: set `interval: step`"),
    ({"name": "warmup_cosine", "warmup": 1.5}, r"scheduler\.warmup: expected an integer ≥ 0 or a number ≥ 0 and < 1"),
    ({"name": "warmup_cosine", "warmup": -1}, r"scheduler\.warmup: expected"),
    ({"name": "SequentialLR"}, "Schedules can't be combined: for a warm-up before a decay use warmup_cosine"),
    ({"name": "LambdaLR"}, "needs a Python function"),
])  # fmt: skip
def test_invalid_warmups_are_refused(tmp_path: Path, scheduler: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Trainer(build(digits(scheduler=scheduler)), tmp_path / "run")


def test_plateau_ignores_undefined_metrics() -> None:
    """Torch counts NaN as an epoch without improvement."""
    schedule, optimizer = create_schedule("ReduceLROnPlateau", "epoch", 9)
    assert schedule.after_epoch(1.0)
    for _ in range(5):
        assert not schedule.after_epoch(float("nan"))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]
    assert schedule.after_epoch(2.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.01]
    assert isinstance(schedule.scheduler, ReduceLROnPlateau)


@pytest.mark.parametrize(("name", "options", "epochs", "idle"), [
    ("PolynomialLR", {"total_iters": 3}, 6, [4, 5, 6]), ("CosineAnnealingLR", {"T_max": 2, "eta_min": 0.0}, 6, [3]),
    ("PolynomialLR", {}, 6, []), ("CosineAnnealingLR", {"eta_min": 0.0}, 6, []), ("StepLR", {"gamma": 0.0}, 4, [3, 4]),
])  # fmt: skip
def test_epochs_with_a_learning_rate_of_0_are_predicted(
    name: str, options: dict[str, Any], epochs: int, idle: list[int]
) -> None:
    schedule, optimizer = create_schedule(name, "epoch", epochs, **options)
    before = schedule.state_dict()
    assert schedule.zero_epochs(0, epochs, STEPS) == idle
    assert schedule.state_dict() == before
    collect_rates(schedule, optimizer, 2)
    assert schedule.zero_epochs(2, epochs, STEPS) == [epoch for epoch in idle if epoch > 2]
    if "total_iters" in options:  # in optimizer steps
        assert create_schedule(name, "step", epochs, total_iters=9)[0].zero_epochs(0, epochs, STEPS) == [4, 5, 6]


def logged_rates(folder: Path) -> dict[int, float]:
    """Return the learning rate of each epoch in metrics.csv."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {int(row["epoch"]): float(row["value"]) for row in rows if row["metric"] == "lr"}


LENGTHS = ["CosineAnnealingLR", "PolynomialLR", {"name": "OneCycleLR", "max_lr": 0.01}, "warmup_linear"]


@pytest.mark.parametrize("scheduler", LENGTHS, ids=str)
def test_extended_run_follows_the_schedule_of_the_new_length(
    tmp_path: Path, scheduler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """From there on, its schedule is that of a run of the new length."""
    Trainer(build(digits(scheduler=scheduler)), tmp_path / "run", plots=False).fit()
    longer = Trainer(build(digits(scheduler=scheduler, training=training(epochs=4))), tmp_path / "run", resume="auto")
    assert longer.fit()["epochs"] == 4
    assert "changed since the checkpoint: training.epochs: is 4, and the saved run has 2" in caplog.text
    Trainer(build(digits(scheduler=scheduler, training=training(epochs=4))), tmp_path / "fresh", plots=False).fit()
    actual, expected = logged_rates(tmp_path / "run"), logged_rates(tmp_path / "fresh")
    assert list(actual) == list(expected) == [1, 2, 3, 4]
    assert (actual[3], actual[4]) == (expected[3], expected[4]) and actual[3] > actual[2] / 10
    assert "now ends at epoch 4" in caplog.text


def test_length_of_a_schedule_can_be_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise the rest of the run has a learning rate of 0, which is logged."""
    scheduler = {"name": "PolynomialLR", "total_iters": 2}
    Trainer(build(digits(scheduler=scheduler)), tmp_path / "run", plots=False).fit()
    assert "the learning rate is 0" not in caplog.text
    longer = training(epochs=3)
    Trainer(build(digits(scheduler=scheduler, training=longer)), tmp_path / "run", resume="must", plots=False).fit()
    assert "the learning rate is 0 in epoch 3 of 3" in caplog.text
    changed = digits(scheduler={**scheduler, "total_iters": 4}, training=training(epochs=4))
    Trainer(build(changed), tmp_path / "run", resume="must", plots=False).fit()
    assert logged_rates(tmp_path / "run") == {1: 1e-3, 2: 5e-4, 3: 0.0, 4: 2.5e-4}


def test_new_learning_rate_takes_effect_immediately(tmp_path: Path) -> None:
    """It is scaled by the current factor of the schedule."""
    for scheduler in (None, {"name": "StepLR", "step_size": 1, "gamma": 0.1}):
        folder = tmp_path / str(scheduler is None)
        Trainer(build(digits(scheduler=scheduler, optimizer={"name": "SGD", "lr": 0.1})), folder, plots=False).fit()
        slower = digits(scheduler=scheduler, optimizer={"name": "SGD", "lr": 0.02}, training=training(epochs=3))
        resumed = Trainer(build(slower), folder, resume="must", plots=False)
        resumed.fit()
        assert resumed.state.step.optimizer.param_groups[0]["lr"] == pytest.approx(
            0.02 * (1 if scheduler is None else 1e-3)
        )
