"""Means of the metrics over the last epochs of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtlcli.config import experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.killing import KilledError, Killer


def fit(folder: Path, epochs: int, resume: Any = "never", **changes: Any) -> dict[str, Any]:
    experiment = digits(training=training(epochs=epochs), **changes)
    return Trainer(build(experiment), folder, resume=resume, plots=False).fit()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run of three epochs, of which the last two are averaged."""
    return fit(tmp_path_factory.mktemp("last") / "run", 3, evaluation={"last": 2})


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_last_epochs_are_averaged_and_others_unchanged(whole: dict[str, Any], tmp_path: Path) -> None:
    """The additional evaluations of `test` don't change the training, and its rows are those of the last epochs."""
    summary, folder = whole, Path(whole["run_dir"])
    plain = fit(tmp_path / "plain", 3)
    rows = read_rows(folder)
    assert [row for row in rows if row["split"] != "test"] == read_rows(tmp_path / "plain")
    assert summary["metrics"] == plain["metrics"]
    assert "last" not in plain
    assert "last" not in (tmp_path / "plain/config.yaml").read_text()
    assert {row["epoch"] for row in rows if row["split"] == "test"} == {"2", "3"}
    assert summary["last"]["epochs"] == 2
    for split in ("val", "test"):
        for task, metrics in summary["last"]["metrics"][split].items():
            assert metrics.keys() == summary["metrics"][split][task].keys()
            for metric, mean in metrics.items():
                values = [
                    float(row["value"])
                    for row in rows
                    if (row["split"], row["task"], row["metric"]) == (split, task, metric) and int(row["epoch"]) > 1
                ]
                assert mean == pytest.approx(np.mean(values), rel=1e-12)
    if summary["best"]["epoch"] == 3:  # then the values of the last epoch are those of the best one
        final = [float(row["value"]) for row in rows if row["split"] == "test" and row["epoch"] == "3"]
        assert final == [value for metrics in summary["metrics"]["test"].values() for value in metrics.values()]
    text = (folder / "table.md").read_text()
    assert text.startswith((tmp_path / "plain/table.md").read_text())
    assert "Below: the mean of the metrics over the last 2 epochs." in text


def test_resumed_and_longer_runs_have_the_same_means(whole: dict[str, Any], tmp_path: Path) -> None:
    experiment = digits(training=training(epochs=3), evaluation={"last": 2})
    with pytest.raises(KilledError):
        Trainer(build(experiment), tmp_path / "killed", callbacks=[Killer(14)], plots=False).fit()  # in epoch 3
    resumed = fit(tmp_path / "killed", 3, "must", evaluation={"last": 2})
    fit(tmp_path / "longer", 2, evaluation={"last": 2})
    longer = fit(tmp_path / "longer", 3, "must", evaluation={"last": 2})
    assert json.dumps(resumed["last"]) == json.dumps(whole["last"]) == json.dumps(longer["last"])


def test_more_last_epochs_than_epochs_and_an_evaluated_test_split(tmp_path: Path) -> None:
    evaluation = {"last": 10, "split": "test"}
    summary = fit(tmp_path / "run", 1, evaluation=evaluation)
    assert summary["last"] == {"epochs": 1, "metrics": summary["metrics"]}
    assert list(summary["metrics"]) == ["test"]


def test_runs_that_can_end_early_are_refused() -> None:
    plain = digits().resolved()
    plain["evaluation"]["last"] = 2
    plain["training"]["early_stopping"] = 3
    plain["tasks"]["ink"]["stop"] = {"patience": 1}
    with pytest.raises(ConfigError, match=r"remove this key, or training\.early_stopping, tasks\.ink\.stop"):
        experiment_from_dict(plain)
