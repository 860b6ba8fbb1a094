"""Checkpoints evaluated on other data than they were trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mtlcli.config import experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.specs import DatasetSpec
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import evaluate
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

TARGETS = {"y": "classes", "b": "binary", "r": "real"}
KINDS = {"y": "classification", "b": "binary", "r": "regression"}


def create_rows(missing: int = 0) -> str:
    """Return a table of 60 rows, the first `missing` of them without labels."""
    lines = [f"{i % 7},{i % 5}," + (",," if i < missing else f"{'uvw'[i % 3]},{i % 2},{i / 10}") for i in range(60)]
    return "\n".join(["a,c,y,b,r", *lines])


def test_labels_missing_only_in_another_file_are_ignored(tmp_path: Path) -> None:
    full, holes, labelled = tmp_path / "full.csv", tmp_path / "holes.csv", tmp_path / "labelled.csv"
    full.write_text(create_rows())
    holes.write_text(create_rows(missing=20))
    labelled.write_text("\n".join(line for i, line in enumerate(create_rows().split("\n")) if not 1 <= i <= 20))
    experiment = digits(
        datasets={"t": {"name": "csv", "path": str(full), "targets": TARGETS}},
        tasks={name: {"dataset": "t", "target": name, "kind": kind} for name, kind in KINDS.items()},
        training=training(batch_size=16, epochs=1),
    )
    payload = load_checkpoint(Trainer(build(experiment), tmp_path / "run").fit()["checkpoint"])

    def evaluate_on(path: Path) -> dict[str, dict[str, float]]:
        overrides = [f"datasets.t.path={path}", "datasets.t.test=1.0"]
        run = rebuild(experiment_from_dict(payload["config"], overrides), payload)
        assert run.splits() == ["test"]
        return evaluate(run, "test")

    with_holes, without = evaluate_on(holes), evaluate_on(labelled)
    for task, metrics in without.items():
        for metric, value in metrics.items():
            assert math.isfinite(value) and with_holes[task][metric] == pytest.approx(value, rel=1e-5), (task, metric)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["datasets.digits.name=mnist"], r"datasets\.digits: the checkpoint was trained on inputs 1×8×8, but"),
        (["datasets.more={name: digits}", "tasks.digit.dataset=more"], "was not trained on a dataset 'more'. Its"),
    ],
)
def test_incompatible_data_is_refused(overrides: list[str], message: str) -> None:
    run = build(digits())
    payload: dict[str, Any] = {
        "config": run.experiment.resolved(),
        "specs": {alias: spec.to_dict() for alias, spec in run.specs.items()},
        "model": run.model.state_dict(),
    }
    assert DatasetSpec.from_dict(payload["specs"]["digits"]) == run.specs["digits"]
    with pytest.raises(ConfigError, match=message):
        rebuild(experiment_from_dict(payload["config"], overrides), payload)
