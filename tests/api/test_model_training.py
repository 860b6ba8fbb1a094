"""`train`: from a dict, and on data passed from Python."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

import mtlcli
from mtlcli import ConfigError, Summary
from mtlcli.cli import main
from tests.api.experiments import DIGITS, TRAINING
from tests.training.identical import digest_checkpoint

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(200, 4))
Y = {"sign": np.where(X[:, 0] > 0, "plus", "minus"), "sum": 10 + X.sum(1), "large": np.abs(X[:, 1]) > 1}
DATA = {"points": (X, Y)}
CONFIG: dict[str, Any] = {
    "name": "points",
    "tasks": {
        "sign": {"dataset": "points", "kind": "classification"},
        "sum": {"dataset": "points", "kind": "regression"},
        "large": {"dataset": "points", "kind": "binary"},
    },
    "trunk": {"name": "mlp", "hidden": [16], "features": 8},
    "optimizer": {"name": "Adam", "lr": 0.03},
    "training": {**TRAINING, "epochs": 6},
}


def test_the_summary_is_the_file_with_attributes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mtl"):
        summary = mtlcli.train(DIGITS, overrides=["training.epochs=1"], run_dir=tmp_path / "run")
    assert capsys.readouterr() == ("", "")
    assert any("epoch 1 of 1" in record.getMessage() for record in caplog.records)
    assert isinstance(summary, Summary) and isinstance(summary, dict)
    assert json.loads((tmp_path / "run/summary.json").read_text()) == json.loads(json.dumps(summary))
    assert summary.status == "completed" and summary.name == "api" and summary.epochs == 1 and summary.steps == 13
    assert summary.run_dir == tmp_path / "run" and summary.checkpoint == tmp_path / "run/checkpoints/best.pt"
    assert summary.metrics is summary["metrics"] and summary.best is not None and summary.best["epoch"] == 1
    assert summary.parameters["total"] > summary.parameters["shared"]


def test_a_run_from_a_dict_is_that_of_the_command_line(tmp_path: Path) -> None:
    summary = mtlcli.train(DIGITS, run_dir=tmp_path / "a", plots=False)
    assert main(["train", str(tmp_path / "a/config.yaml"), "--run-dir", str(tmp_path / "b")]) == 0
    other = json.loads((tmp_path / "b/summary.json").read_text())
    assert other["metrics"] == json.loads(json.dumps(summary.metrics))


def test_data_passed_from_python_is_trained_evaluated_and_predicted(tmp_path: Path) -> None:
    summary = mtlcli.train(CONFIG, datasets=DATA, run_dir=tmp_path / "run", plots=False)
    assert set(summary.metrics) == {"val", "test"} and summary.metrics["test"]["sign"]["accuracy"] > 0.8
    assert summary.checkpoint is not None
    assert mtlcli.evaluate(summary.checkpoint, datasets=DATA) == summary.metrics["test"]
    run = mtlcli.build(CONFIG, datasets=DATA)
    rows = run.examples("test")["points"].rows
    assert rows is not None

    predictions = mtlcli.load(summary.checkpoint).predict(X)  # without the data
    predicted = np.array(predictions["sign"].labels)[rows.numpy()]
    assert (predicted == Y["sign"][rows.numpy()]).mean() == summary.metrics["test"]["sign"]["accuracy"]
    assert predictions["sign"].classes == ("minus", "plus") and predictions["large"].classes == ("0", "1")
    values = predictions["sum"].labels
    assert isinstance(values, torch.Tensor)
    mse = np.square(values.numpy() - Y["sum"])[rows.numpy()].mean()
    assert mse == pytest.approx(summary.metrics["test"]["sum"]["mse"], rel=1e-5)


def test_a_run_on_data_passed_from_python_resumes_with_the_same_bits(tmp_path: Path) -> None:
    mtlcli.train(CONFIG, datasets=DATA, run_dir=tmp_path / "whole", plots=False)
    first = mtlcli.train(CONFIG, overrides=["training.epochs=1"], datasets=DATA, run_dir=tmp_path / "run", plots=False)
    assert first.epochs == 1
    resumed = mtlcli.train(CONFIG, datasets=DATA, run_dir=tmp_path / "run", resume="must", plots=False)
    assert resumed.epochs == 6
    assert digest_checkpoint(tmp_path / "whole/checkpoints/last.pt") == digest_checkpoint(
        tmp_path / "run/checkpoints/last.pt"
    )
    changed = {"points": (X + (np.arange(200) == 5)[:, None], Y)}
    with pytest.raises(ConfigError, match="a run can be resumed only with the data it was started with"):
        mtlcli.train(CONFIG, overrides=["training.epochs=7"], datasets=changed, run_dir=tmp_path / "run", resume="must")


def test_without_the_data_there_is_one_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = mtlcli.train(CONFIG, overrides=["training.epochs=1"], datasets=DATA, run_dir=tmp_path / "run")
    message = "datasets.points: the data of this dataset is passed from Python and is not stored with a run; pass it"
    with pytest.raises(ConfigError, match=message):
        mtlcli.evaluate(summary.run_dir)
    config = str(tmp_path / "run/config.yaml")
    commands = (
        ["eval", str(summary.checkpoint)],
        ["train", config, "--run-dir", str(tmp_path / "run"), "--resume", "must"],
        ["validate", config],
    )
    for command in commands:
        assert main(command) == 2
        assert message in capsys.readouterr().err
    out = tmp_path / "model.pt2"
    assert main(["export", str(summary.checkpoint), "--format", "safetensors", "--out", str(out)]) == 0


def test_other_data_is_evaluated_whole(tmp_path: Path) -> None:
    summary = mtlcli.train(CONFIG, overrides=["training.epochs=1"], datasets=DATA, run_dir=tmp_path / "run")
    new = GENERATOR.normal(size=(30, 4))
    labels = {"sign": np.where(new[:, 0] > 0, "plus", "minus"), "sum": new.sum(1), "large": np.abs(new[:, 1]) > 1}
    assert summary.checkpoint is not None
    metrics = mtlcli.evaluate(summary.checkpoint, datasets={"points": (new, labels)})
    model = mtlcli.load(summary.checkpoint)
    predicted = np.array(model.predict(new)["sign"].labels)
    assert metrics["sign"]["accuracy"] == (predicted == labels["sign"]).mean()
    test = {"test": (new, labels)}
    assert mtlcli.evaluate(summary.checkpoint, split="test", datasets={"points": test}) == metrics


class Colours(Dataset[Any]):
    """A map-style dataset of images."""

    def __len__(self) -> int:
        return 120

    def __getitem__(self, row: int) -> Any:
        image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(row))
        return image, {"bright": image.float().mean(), "side": ("left", "right")[row % 2]}


def test_a_dataset_that_is_read_one_item_at_a_time_is_trained_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtlcli.data.formats.python_items.READ_WHOLE", 1000)
    config = {
        "tasks": {"bright": {"dataset": "own", "kind": "regression"}, "side": {"dataset": "own", "kind": "binary"}},
        "trunk": {"name": "mlp", "hidden": [8]},
        "training": {**TRAINING, "loading": "stream", "workers": 0},
    }
    data = {"own": Colours()}
    summary = mtlcli.train(config, datasets=data, run_dir=tmp_path / "run", plots=False)
    assert summary["loading"] == {"own": "stream"} and summary["examples"]["test"]["bright"] == 24
    assert mtlcli.evaluate(summary.run_dir, datasets=data) == summary.metrics["test"]
    longer = ["training.epochs=2"]
    resumed = mtlcli.train(config, overrides=longer, datasets=data, run_dir=tmp_path / "run", resume="must")
    assert resumed.epochs == 2 and resumed.checkpoint is not None
    images = torch.stack([Colours()[row][0] for row in range(3)])
    assert set(mtlcli.load(resumed.checkpoint).predict(images)["side"].labels) <= {"left", "right"}


def test_options_of_the_dataset_are_set_in_the_configuration(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (90, 3, 8, 8), dtype=torch.uint8)
    data = TensorDataset(images, torch.arange(90) % 3)
    config = {
        "datasets": {"own": {"classes": {"target": ["a", "b", "c"]}, "test": 0.0, "augment": ["RandomHorizontalFlip"]}},
        "tasks": {"letter": {"dataset": "own", "kind": "classification"}},
        "trunk": {"name": "mlp", "hidden": [8]},
        "training": TRAINING,
    }
    summary = mtlcli.train(config, datasets={"own": data}, run_dir=tmp_path / "run", plots=False)
    assert list(summary.metrics) == ["val"] and summary.checkpoint is not None
    model = mtlcli.load(summary.checkpoint)
    assert set(model.predict(images.permute(0, 1, 3, 2))["letter"].labels) <= {"a", "b", "c"}
    with pytest.raises(mtlcli.InputError, match="expected uint8 with the raw values 0 to 255, got float32"):
        model.predict(images / 255)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resume": "maybe"}, "resume: expected 'never', 'auto' or 'must', got 'maybe'"),
        ({"resume": "auto"}, "resume='auto' needs run_dir"),
        ({"datasets": {"points": (X, Y), "more": (X, Y)}}, "datasets.more: no task uses this dataset"),
        (
            {"datasets": {"points": (X, Y["sum"])}},
            r"tasks\.sign\.kind: needs a target of type .*set `targets: {target: classes}`",
        ),
        ({"datasets": {}}, "datasets: missing"),
        ({"datasets": [X]}, "datasets: expected a dict of aliases to data, got list"),
        (
            {"config": {**CONFIG, "weighting": {"name": "relation", "from": "data"}}},
            "weighting.from: a relation can't be measured on data passed from Python",
        ),
        ({"config": DIGITS, "datasets": {"digits": (X, Y)}}, "datasets.digits: data was passed from Python for this"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"config": CONFIG, "datasets": DATA, **change}
    with pytest.raises(ConfigError, match=message):
        mtlcli.train(**arguments)
    assert not list(tmp_path.iterdir())


class Losses(mtlcli.Callback):
    """A callback that records its arguments."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []
        self.summary: Any = None

    def on_epoch_end(self, state: Any, metrics: Any) -> None:
        self.metrics.append(metrics["digit"]["accuracy"])

    def on_fit_end(self, state: Any, summary: Any) -> None:
        self.summary = summary


def test_callbacks_watch_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Losses()
    summary = mtlcli.train(DIGITS, callbacks=[losses], run_dir=tmp_path / "run", plots=False)
    assert summary.best is not None
    assert losses.metrics[summary.best["epoch"] - 1] == summary.metrics["val"]["digit"]["accuracy"]
    assert losses.summary is summary
    monkeypatch.chdir(tmp_path)
    for wrong in (print, [print], [Losses], losses):
        with pytest.raises(TypeError, match="callbacks"):
            mtlcli.train(DIGITS, callbacks=wrong)
    assert not (tmp_path / "runs").exists()
