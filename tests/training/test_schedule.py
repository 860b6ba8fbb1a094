"""Schedulers: their length, their direction, and what they refuse before a step is made."""

from pathlib import Path
from typing import Any

import pytest

from mtlcli.errors import ConfigError
from mtlcli.training.build import build
from mtlcli.training.optimization import make_optimizer, make_schedule
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training


@pytest.mark.parametrize(("direction", "values", "reduced"), [
    ("max", [0.9] * 6, True), ("max", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], False),
    ("min", [0.9] * 6, True), ("min", [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], False),
])  # fmt: skip
def test_plateau_goes_by_the_monitored_metric_s_direction(direction: str, values: list[float], reduced: bool) -> None:
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
def test_what_cannot_work_is_refused_by_the_check(scheduler: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(digits(scheduler=scheduler, optimizer={"name": "SGD", "lr": 1.0}))


def test_a_schedule_shorter_than_the_run_is_refused_before_it_starts(tmp_path: Path) -> None:
    experiment = digits(scheduler={"name": "OneCycleLR", "max_lr": 0.01, "total_steps": 7})
    with pytest.raises(ConfigError, match="total_steps are 7, and the run has 12"):
        Trainer(build(experiment), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("scheduler", ["CosineAnnealingLR", {"name": "OneCycleLR", "max_lr": 0.01}], ids=str)
def test_a_run_that_is_made_longer_goes_on_to_the_new_end(
    tmp_path: Path, scheduler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As the schedule of the longer run does from here; a resumed run of the same length is left alone."""
    Trainer(build(digits(scheduler=scheduler)), tmp_path / "run", plots=False).fit()
    longer = Trainer(build(digits(scheduler=scheduler, training=training(epochs=4))), tmp_path / "run", resume="auto")
    assert longer.fit()["epochs"] == 4
    assert "changed since the checkpoint: training.epochs: is 4, and the run in hand was started with 2" in caplog.text
    fresh = Trainer(build(digits(scheduler=scheduler, training=training(epochs=4))), tmp_path / "fresh")
    for _ in range(4 * fresh.steps_per_epoch if fresh.schedule.per_step else 4):
        fresh.step.optimizer.step()
        fresh.schedule.after_step()
        fresh.schedule.after_epoch(0.0)
    there, here = (one.step.optimizer.param_groups[0]["lr"] for one in (fresh, longer))
    assert here == pytest.approx(there, abs=1e-9)


def test_a_new_learning_rate_takes_effect_at_once(tmp_path: Path) -> None:
    """Scaled by what the schedule has made of the old one so far."""
    for scheduler in (None, {"name": "StepLR", "step_size": 1, "gamma": 0.1}):
        folder = tmp_path / str(scheduler is None)
        Trainer(build(digits(scheduler=scheduler, optimizer={"name": "SGD", "lr": 0.1})), folder, plots=False).fit()
        slower = digits(scheduler=scheduler, optimizer={"name": "SGD", "lr": 0.02}, training=training(epochs=3))
        resumed = Trainer(build(slower), folder, resume="must", plots=False)
        resumed.fit()
        assert resumed.step.optimizer.param_groups[0]["lr"] == pytest.approx(0.02 * (1 if scheduler is None else 1e-3))
