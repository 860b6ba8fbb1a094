"""The option `primary` selects another metric than that of the task's kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlcli.cli.requirements import check_requirements, parse_requirements
from mtlcli.errors import RequirementError
from mtlcli.training.assembly.build import build
from mtlcli.training.evaluate import Monitor, primary_metric
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

TASKS = {
    "rare": {"dataset": "digits", "target": "parity", "kind": {"name": "binary", "primary": "auroc"}},
    "plain": {"dataset": "digits", "target": "parity", "kind": "binary"},
}


def test_another_primary_metric_is_monitored_and_required(tmp_path: Path) -> None:
    experiment = digits(tasks=TASKS, optimizer={"name": "AdamW", "lr": 0.01}, training=training(epochs=3))
    assert [primary_metric(experiment, task) for task in TASKS] == ["auroc", "accuracy"]
    run = build(experiment)
    assert Monitor(experiment, run.kinds).metrics == {"rare": "auroc", "plain": "accuracy"}
    summary = Trainer(run, tmp_path / "run", plots=False).fit()
    assert summary["primary"] == {"rare": "auroc", "plain": "accuracy"}
    metrics = summary["metrics"]["val"]
    best = (metrics["rare"]["auroc"] + metrics["plain"]["accuracy"]) / 2
    assert summary["best"]["value"] == pytest.approx(best, abs=1e-6)
    bound = metrics["rare"]["auroc"] - 1e-6
    assert bound > metrics["rare"]["accuracy"], "the test tells nothing"
    requirements = parse_requirements([f"rare.primary>={bound}"], experiment)
    check_requirements(requirements, experiment, metrics)
    with pytest.raises(RequirementError):
        check_requirements(parse_requirements([f"plain.primary>={bound}"], experiment), experiment, metrics)
