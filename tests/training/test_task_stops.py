"""Early stopping of single tasks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.registry import weightings
from mtlcli.training.assembly.build import build, check
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.callbacks import Callback
from mtlcli.training.run import Run
from mtlcli.training.state import TrainerState
from mtlcli.training.step import Step
from mtlcli.training.task_stops import FrozenTasks, StopRule, TaskStops
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.test_step import OPTIONS, batch

TASKS: dict[str, Any] = {
    "digit": {"dataset": "digits", "target": "digit", "kind": "classification"},
    "ink": {"dataset": "digits", "target": "ink", "kind": "regression", "stop": {"patience": 1}},
}
ADAMW = {"name": "AdamW", "lr": 0.05, "weight_decay": 0.1}
LEVELS = [{"name": name, **OPTIONS.get(name, {})} for name in weightings.names() if name != "torchjd"]
LEVELS += [{"name": "pcgrad", "gradients": "features"}, {"name": "mgda", "every": 2}]


def test_a_task_stops_after_its_patience() -> None:
    stops = TaskStops({"a": StopRule(2, "r2", larger=True), "b": StopRule(1, "mae", larger=False)})
    values = [(0.1, 5.0), (0.3, 4.0), (math.nan, 4.0), (0.3, 1.0), (0.9, 0.5)]
    stopped = []
    for epoch, (r2, mae) in enumerate(values, 1):
        stops.judge(epoch, {"a": {"r2": r2}, "b": {"mae": mae}})
        stopped.append(dict(stops.stopped))
    assert stopped == [{}, {}, {"b": 3}, {"b": 3, "a": 4}, {"b": 3, "a": 4}]
    assert stops.best == {"a": (2, 0.3), "b": (2, 4.0)}
    again = TaskStops(stops.rules)
    again.load_state_dict(stops.state_dict())
    assert (again.best, again.stopped) == (stops.best, stops.stopped)
    train = {"a": {"loss": 1.0, "weight": 2.0}, "b": {"loss": math.nan, "weight": math.nan}}
    stops = TaskStops(stops.rules, {"a": (1, 0.5)}, {"b": 3})
    marked = stops.end_epoch(4, train, {"a": {"r2": 0.1}, "b": {"mae": 1.0}})
    assert (marked["a"]["weight"], marked["b"]["weight"]) == (2.0, 0.0)


def test_a_task_without_labels_never_stops() -> None:
    stops = TaskStops({"a": StopRule(1, "r2", larger=True)})
    for epoch in range(1, 5):
        assert stops.judge(epoch, {"a": {"r2": math.nan}}) == []


def make(**changes: Any) -> tuple[Run, Step]:
    trunk = {"name": "mlp", "hidden": [16], "features": 8}
    run = build(digits(**{"trunk": trunk, "optimizer": ADAMW, **changes}))
    return run, Step(run, make_optimizer(run))


def own(run: Run, task: str) -> list[Tensor]:
    return [p.detach().clone() for module in run.model.own_modules(task) for p in module.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("weighting", LEVELS, ids=str)
def test_the_head_of_a_stopped_task_stays_bit_identical(weighting: dict[str, Any]) -> None:
    """In spite of weight decay and momentum; the rest is trained as if the task were absent."""
    run, step = make(weighting=weighting)
    for _ in range(2):
        step([batch(0, 64)])
    head, before = own(run, "ink"), own(run, "digit")
    step.frozen = FrozenTasks({"ink"}, run.model)
    for _ in range(2):
        result = step([batch(0, 32), batch(32, 64)])
        assert result is not None
        assert result[0].losses.shape == (1,) and result[1] == [64, 0]
    run.weighting.end_epoch(torch.tensor([1.0, math.nan]))
    result = step([batch(0, 64)])
    assert result is not None and bool(result[0].weights.isfinite().all())
    assert equal(own(run, "ink"), head) and not equal(own(run, "digit"), before)


def test_a_stopped_task_is_as_an_absent_one() -> None:
    first_run, first = make(optimizer={"name": "SGD", "lr": 0.1})
    second_run, second = make(optimizer={"name": "SGD", "lr": 0.1})
    first.frozen = FrozenTasks({"ink"}, first_run.model)
    given = batch(0, 64)
    first([given])
    second([type(given)(given.inputs, given.targets, {"digit": 64, "ink": 0})])
    pairs = zip(first_run.model.parameters(), second_run.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("sharing", ["none", "shared_private", "mtan"])
def test_all_modules_of_its_own_stay(sharing: str) -> None:
    trunk = {"name": "mlp", "hidden": [16], "features": 8}
    run, step = make(sharing=sharing, trunk=trunk)
    step([batch(0, 16)])
    before = own(run, "ink")
    step.frozen = FrozenTasks({"ink"}, run.model)
    step([batch(0, 16)])
    assert len(before) > 2 or sharing == "mtan"
    assert equal(own(run, "ink"), before)


@pytest.mark.parametrize("weighting", ["fixed", "mgda"])
def test_the_head_stays_if_another_task_comes_after_it(weighting: str) -> None:
    tasks = {"digit": {**TASKS["digit"], "after": "ink"}, "ink": {**TASKS["ink"], "stop": None}}
    run, step = make(weighting=weighting, tasks=tasks)
    step([batch(0, 64)])
    head = [p.detach().clone() for p in run.model.heads["ink"].parameters()]
    step.frozen = FrozenTasks({"ink"}, run.model)
    step([batch(0, 64)])
    assert equal([p.detach() for p in run.model.heads["ink"].parameters()], head)


@pytest.mark.parametrize("weighting", ["fixed", "pcgrad"])
def test_regularizers_of_all_parameters_leave_it_alone(weighting: str) -> None:
    run, step = make(weighting=weighting, regularizers=[{"name": "l2", "strength": 0.1, "on": "all"}])
    step([batch(0, 64)])
    before = own(run, "ink")
    step.frozen = FrozenTasks({"ink"}, run.model)
    step([batch(0, 64)])
    assert equal(own(run, "ink"), before)


def stopping(**changes: Any) -> Experiment:
    """`ink` stops: the patience is 1, and a large learning rate makes its metric worse at times."""
    return digits(tasks=TASKS, optimizer=ADAMW, training=training(epochs=8), **changes)


class HeadAtEachEpoch(Callback):
    """Records the head of `ink` at the end of each epoch."""

    def __init__(self) -> None:
        self.heads: list[list[Tensor]] = []

    def on_epoch_end(self, state: TrainerState, metrics: Any) -> None:
        self.heads.append(own(state.run, "ink"))


@pytest.mark.parametrize("weighting", ["uncertainty"])
def test_a_run_in_which_a_task_stops(tmp_path: Path, weighting: str) -> None:
    recorded = HeadAtEachEpoch()
    trainer = Trainer(build(stopping(weighting=weighting)), tmp_path / "run", callbacks=[recorded], plots=False)
    summary = trainer.fit()
    values = trainer.state.history.series("val", "r2")["ink"][1]
    expected = next(e for e in range(1, len(values)) if values[e] <= max(values[:e])) + 1
    assert summary["stopped"]["ink"]["epoch"] == expected < 8
    assert summary["stopped"]["ink"]["best_value"] == max(values[: expected - 1])
    assert summary.status == "completed" and summary["ended_by"] == "training.epochs" and summary.epochs == 8
    assert all(equal(head, recorded.heads[expected - 1]) for head in recorded.heads[expected:])
    assert trainer.state.history.series("train", "weight")["ink"][1][expected:] == [0.0] * (8 - expected)
    log = (tmp_path / "run/log.txt").read_text()
    assert f"task ink stopped after epoch {expected}: no better r2 than" in log
    assert f"ink: stopped after epoch {expected}, val r2" in log
    assert f"Stopped: ink after epoch {expected}" in (tmp_path / "run/table.md").read_text()


class Kill(Callback):
    """Ends the run in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: TrainerState, result: Any) -> None:
        if state.progress.steps == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("weighting", ["famo"])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, weighting: str) -> None:
    experiment = stopping(weighting=weighting, checkpoint={"every": "4 steps"})
    whole = Trainer(build(experiment), tmp_path / "whole", plots=False)
    summary = whole.fit()
    stopped = summary["stopped"]["ink"]["epoch"]
    with pytest.raises(KeyboardInterrupt):
        Trainer(build(experiment), tmp_path / "killed", callbacks=[Kill(stopped * 6 + 5)]).fit()
    resumed = Trainer(build(experiment), tmp_path / "killed", resume="must", plots=False)
    again = resumed.fit()
    assert again.metrics == summary.metrics and again["stopped"] == summary["stopped"]
    assert resumed.state.history.to_csv() == whole.state.history.to_csv()


def test_the_run_ends_when_all_tasks_have_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = {name: {**task, "stop": {"patience": 1, "metric": "loss"}} for name, task in TASKS.items()}
    experiment = digits(tasks=tasks, optimizer=ADAMW, training=training(epochs=60))
    summary = Trainer(build(experiment), tmp_path / "run", plots=False).fit()
    last = max(facts["epoch"] for facts in summary["stopped"].values())
    assert set(summary["stopped"]) == set(TASKS) and summary.epochs == last < 60
    assert summary.status == "completed" and summary["ended_by"] == "tasks.*.stop"
    assert (
        f"stopped early at epoch {last} of 60: all tasks have stopped; best epoch"
        in (tmp_path / "run/log.txt").read_text()
    )
    longer = digits(tasks=tasks, optimizer=ADAMW, training=training(epochs=70))
    again = Trainer(build(longer), tmp_path / "run", resume="must", plots=False).fit()
    assert again.epochs == last and "all tasks had stopped" in caplog.text


def test_an_unknown_metric() -> None:
    tasks = {**TASKS, "ink": {**TASKS["ink"], "stop": {"patience": 1, "metric": "rsme"}}}
    experiment = digits(tasks=tasks)
    with pytest.raises(ConfigError, match="task 'ink' has no metric 'rsme'") as raised:
        check(experiment, open_datasets(experiment))
    assert [problem.path for problem in raised.value.problems] == ["tasks.ink.stop.metric"]
    assert "Did you mean 'rmse'?" in str(raised.value)
