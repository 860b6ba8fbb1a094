"""Steps that change the parameters and their learning rates, and messages about steps that don't."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.config import Experiment
from mtlcli.errors import MtlError
from mtlcli.training.assembly.build import build
from mtlcli.training.callbacks import Callback
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.failures import DivergedError
from mtlcli.training.messages import EpochReport
from mtlcli.training.state import TrainerState
from mtlcli.training.step import MOST_SKIPPED
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer
from tests.training.test_failures import poison

LAST = "checkpoints/last.pt"


class Listener(Callback):
    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
        assert state.report is not None
        self.reports.append(state.report)


def rates(folder: Path) -> dict[str, list[float]]:
    """Read parameter group → learning rate in each epoch from metrics.csv."""
    learning_rates: dict[str, list[float]] = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if row["metric"] == "lr":
                assert row["split"] == "train"
                learning_rates.setdefault(row["task"], []).append(float(row["value"]))
    return learning_rates


def table(folder: Path, rows: list[str], **changes: Any) -> Experiment:
    """Return an experiment on a table whose first 40 rows are `train` and the others `val`. rows: labels, in order."""
    lines = [f"{at % 7},{at % 5},{y},{'train' if at < 40 else 'val'}" for at, y in enumerate(rows)]
    (folder / "t.csv").write_text("\n".join(["a,b,y,s", *lines]) + "\n")
    dataset = {"name": "csv", "path": str(folder / "t.csv"), "targets": {"y": "binary"}, "split_column": "s"}
    task = {"dataset": "t", "target": "y", "kind": {"name": "binary", "primary": "auroc"}}
    return digits(datasets={"t": dataset}, tasks={"y": task}, **changes)


def test_the_learning_rate_of_every_group_is_recorded(tmp_path: Path) -> None:
    groups = {"trunk": {"lr": 0.1}, "ink": {"lr": 0.2}}
    optimizer = {"name": "SGD", "lr": 0.4, "groups": groups}
    scheduler = {"name": "StepLR", "step_size": 1, "gamma": 0.5}
    listener = Listener()
    experiment = digits(optimizer=optimizer, scheduler=scheduler, weighting="uncertainty")
    summary = Trainer(build(experiment), tmp_path / "run", callbacks=[listener], plots=False).fit()
    expected = {"trunk": [0.1, 0.05], "digit": [0.4, 0.2], "ink": [0.2, 0.1], "weighting": [0.4, 0.2]}
    assert rates(tmp_path / "run") == {f"optimizer.{group}": values for group, values in expected.items()}
    assert summary["learning_rates"] == {group: values[-1] for group, values in expected.items()}
    assert listener.reports[0].learning_rates == {group: values[0] for group, values in expected.items()}
    assert "lr of trunk 0.1, lr of digit 0.4, lr of ink 0.2, lr of weighting 0.4" in str(listener.reports[0])


@pytest.mark.parametrize(("groups", "name"), [
    ({}, ["model"]), ({"trunk": {"lr": 0.1}}, ["trunk", "heads"]), ({"ink": {"lr": 0.1}}, ["trunk+digit", "ink"]),
    ({"heads": {"lr": 0.1}, "trunk": {"lr": 0.1}}, ["model"]), ({"digit": {"lr": 0.1}}, ["trunk+ink", "digit"]),
])  # fmt: skip
def test_names_of_parameter_groups(tmp_path: Path, groups: dict[str, Any], name: list[str]) -> None:
    trainer = Trainer(build(digits(optimizer={"name": "SGD", "lr": 1.0, "groups": groups})), tmp_path / "run")
    assert trainer.state.groups == name


def test_the_learning_rate_of_the_last_step_is_recorded_and_logged(tmp_path: Path) -> None:
    """The schedule advances with each step; its length counts optimizer steps, under accumulation."""
    scheduler = {"name": "OneCycleLR", "max_lr": 0.1}
    experiment = digits(
        optimizer={"name": "SGD", "lr": 0.01}, scheduler=scheduler, training=training(batch_size=29, accumulate=3)
    )
    listener = Listener()
    trainer = Trainer(build(experiment), tmp_path / "run", callbacks=[listener], plots=False)
    trainer.fit()
    (model,) = rates(tmp_path / "run").values()
    assert model[-1] == pytest.approx(0.1 / 25 / 1e4)  # OneCycleLR's default end
    assert str(listener.reports[-1]).count("| lr 4e-07 |") == 1
    assert load_checkpoint(tmp_path / "run" / LAST)["schedule"]["total_steps"] == trainer.state.progress.updates


def test_batches_without_labels_make_no_step_of_the_schedule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise torch warns, which is an error in these tests."""
    labels = ["0", "1", "1", *[""] * 37, "0", "1", ""]
    scheduler = {"name": "CosineAnnealingLR", "interval": "step"}
    experiment = table(tmp_path, labels, scheduler=scheduler, training=training(batch_size=2, epochs=3))
    trainer = Trainer(build(experiment), tmp_path / "run", plots=False)
    trainer.fit()
    assert trainer.state.progress.steps == 60 and 3 <= trainer.state.progress.updates <= 9
    assert trainer.state.schedule.state_dict()["last_epoch"] == trainer.state.progress.updates
    assert caplog.text.count("of the 20 steps of the epoch changed the parameters") == 1
    with pytest.raises(KilledError):
        Trainer(build(experiment), tmp_path / "killed", callbacks=[Killer(33)], plots=False).fit()
    Trainer(build(experiment), tmp_path / "killed", resume="must", plots=False).fit()
    assert digest_checkpoint(tmp_path / "killed" / LAST) == digest_checkpoint(tmp_path / "run" / LAST)


def test_plateau_keeps_its_learning_rate_if_the_monitored_value_is_undefined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = {"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.1}
    experiment = table(tmp_path, ["0", "1"] * 20 + ["1"] * 9, scheduler=scheduler, training=training(epochs=4))
    Trainer(build(experiment), tmp_path / "run", plots=False).fit()
    assert rates(tmp_path / "run") == {"optimizer.model": [1e-3] * 4}
    assert caplog.text.count("ReduceLROnPlateau keeps its learning rate: the monitored value is undefined") == 1
    assert "y: no value to monitor (no labels in val, or all of them the same?)" in caplog.text


@pytest.mark.parametrize("scheduler", [None, {"name": "StepLR", "step_size": 1}])
def test_a_run_whose_every_step_fp16_skips_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scheduler: Any
) -> None:
    trainer = Trainer(build(digits(training=training(precision="fp16"), scheduler=scheduler)), tmp_path / "run")
    poison(trainer.run.kinds["ink"], monkeypatch, after=0)
    with pytest.raises(MtlError, match=r"no parameter changed in 12 steps: fp16's loss scaling skipped every.*bf16"):
        trainer.fit()
    assert "no parameter changed in epoch 1: fp16's loss scaling" in caplog.text
    assert rates(tmp_path / "run") == {"optimizer.model": [1e-3] * 2}
    assert trainer.summary is not None and trainer.summary["status"] == "failed"


def test_fp16_fails_if_no_loss_scale_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = digits(training=training(precision="fp16", epochs=50, batch_size=100), checkpoint={"every": "1 step"})
    trainer = Trainer(build(experiment), tmp_path / "run", plots=False)
    poison(trainer.run.kinds["ink"], monkeypatch, after=9)
    message = rf"fp16: the last {MOST_SKIPPED} steps, up to step {8 + MOST_SKIPPED}, were skipped.*bf16 or fp32"
    with pytest.raises(DivergedError, match=message):
        trainer.fit()
    saved = load_checkpoint(tmp_path / "run" / LAST)
    assert saved["step"]["skipped"] == MOST_SKIPPED - 1 and saved["progress"]["updates"] == 8
    resumed = Trainer(build(experiment), tmp_path / "run", resume="must", plots=False)
    poison(resumed.run.kinds["ink"], monkeypatch, after=0)
    with pytest.raises(DivergedError, match=message):  # at the same step
        resumed.fit()


def test_overflows_of_fp16_at_the_start_are_accepted(tmp_path: Path) -> None:
    """The loss scale is halved until it fits; the schedule makes no step meanwhile."""
    scheduler = {"name": "StepLR", "step_size": 1, "gamma": 0.9, "interval": "step"}
    experiment = digits(training=training(precision="fp16"), scheduler=scheduler)
    trainer = Trainer(build(experiment), tmp_path / "run", plots=False)
    trainer.state.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    trainer.state.step.backward.scaler = trainer.state.step.scaler  # type: ignore[attr-defined]
    trainer.fit()
    updates = trainer.state.progress.updates
    assert 0 < updates < 12
    assert trainer.state.step.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.9**updates)


@pytest.mark.parametrize("patience", [3, 5, None])
def test_a_run_that_stopped_early_is_resumed_with_more_epochs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, patience: int | None
) -> None:
    """training.early_stopping still applies, and a warning is logged if it ends the run at once."""
    optimizer = {"name": "SGD", "lr": 1e-12}  # nothing gets better after the first epoch
    monitor = {"monitor": {"task": "ink", "metric": "r2"}}
    stopping = training(epochs=7, early_stopping=3)
    first = Trainer(build(digits(optimizer=optimizer, training=stopping, evaluation=monitor)), tmp_path / "run")
    first.fit()
    assert first.state.progress.epoch == first.state.progress.best_epoch + 3 < 7
    caplog.clear()
    longer = digits(
        optimizer=optimizer, training={**stopping, "epochs": 9, "early_stopping": patience}, evaluation=monitor
    )
    trainer = Trainer(build(longer), tmp_path / "run", resume="auto")
    with caplog.at_level(logging.INFO, "mtl"):
        assert trainer.fit()["epochs"] == (9 if patience is None else first.state.progress.best_epoch + patience)
    stays = patience == 3
    assert ("stopped early after epoch" in caplog.text) == stays
    assert ("raise training.early_stopping above 3 or set it to null" in caplog.text) == stays
