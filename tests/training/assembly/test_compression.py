"""Compression at the end of a run: reports, checkpoint, evaluation, export, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mtlcli.cli import main
from mtlcli.config import experiment_from_dict
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import evaluate
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

TERMS = [
    {"name": "multi_nuclear_norm", "layers": ["*"], "rank": 8, "threshold": 0.3, "strength": 0.01},
    "reconstruction",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    Trainer(build(digits(regularizers=TERMS, training=training(epochs=1))), path).fit()
    return path


def test_report_of_the_compression(folder: Path) -> None:
    report = json.loads((folder / "summary.json").read_text())["compression"]
    layers = report["regularizers"]["regularizers.multi_nuclear_norm"]["layers"]
    assert all(1 <= layer["rank"] <= layer["of"] <= 8 for layer in layers.values())
    assert any(layer["rank"] < layer["of"] for layer in layers.values())
    dense = build(digits())
    assert report["shared_parameters"]["before"] == dense.model.count_parameters()["shared"]
    saved = sum(layer["dense"] - layer["parameters"] for layer in layers.values())
    assert report["shared_parameters"]["before"] - report["shared_parameters"]["after"] == saved
    assert report["flops"]["after"] - report["flops"]["before"] == -2 * saved  # of one example, in linear layers
    assert set(report["metrics"]) == {"before", "after"}


def test_best_checkpoint_contains_the_compressed_model(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    payload = load_checkpoint(folder / "checkpoints" / "best.pt")
    run = rebuild(experiment_from_dict(payload["config"]), payload)
    assert run.model.count_parameters() == summary["parameters"]
    assert run.model.count_parameters()["shared"] == summary["compression"]["shared_parameters"]["after"]
    assert evaluate(run, "test") == summary["metrics"]["test"] == summary["compression"]["metrics"]["after"]["test"]


def test_run_resumes_uncompressed_and_is_compressed_again(folder: Path, tmp_path: Path) -> None:
    uninterrupted = Trainer(build(digits(regularizers=TERMS, training=training(epochs=2))), tmp_path / "whole").fit()
    resumed = Trainer(build(digits(regularizers=TERMS, training=training(epochs=2))), folder, resume="must").fit()
    assert resumed["metrics"] == uninterrupted["metrics"] and resumed["compression"] == uninterrupted["compression"]


def test_end_of_a_finished_run_can_be_repeated(folder: Path) -> None:
    before = json.loads((folder / "summary.json").read_text())
    epochs = before["epochs"]
    again = Trainer(build(digits(regularizers=TERMS, training=training(epochs=epochs))), folder, resume="must").fit()
    assert again["compression"] == before["compression"] and again["metrics"] == before["metrics"]


def test_export_of_the_compressed_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = folder / "checkpoints" / "best.pt"
    assert main(["export", str(best), "--format", "torch-export", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    summary = json.loads((folder / "summary.json").read_text())
    assert result["parameters"] == summary["parameters"]["total"]
    program = torch.export.load(best.with_suffix(".pt2"))
    assert program.module()({"digits": torch.zeros(3, 1, 8, 8)})["digit"].shape == (
        3,
        10,
    )


def test_trunk_starts_from_a_compressed_one(folder: Path) -> None:
    best = folder / "checkpoints" / "best.pt"
    payload = load_checkpoint(best)
    compressed = rebuild(experiment_from_dict(payload["config"]), payload)
    trunk = {**digits().resolved()["trunk"], "init_from": str(best)}
    x = {"digits": torch.rand(5, 1, 8, 8)}
    for terms in ([], [{"name": "multi_nuclear_norm"}]):  # dense or factorized again
        run = build(digits(trunk=trunk, regularizers=terms))
        for model in (run.model, compressed.model):
            model.eval()
        with torch.no_grad():
            actual, expected = (model.representations(x, ["digit"])["digit"] for model in (run.model, compressed.model))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
