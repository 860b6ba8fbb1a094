"""A model that is compressed at the end of its run: reports, checkpoint, evaluation, export, going on."""

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


def test_what_is_told(folder: Path) -> None:
    report = json.loads((folder / "summary.json").read_text())["compression"]
    layers = report["regularizers"]["regularizers.multi_nuclear_norm"]["layers"]
    assert all(1 <= facts["rank"] <= facts["of"] <= 8 for facts in layers.values())
    assert any(facts["rank"] < facts["of"] for facts in layers.values())
    dense = build(digits())
    assert report["shared_parameters"]["before"] == dense.model.count_parameters()["shared"]
    saved = sum(facts["dense"] - facts["parameters"] for facts in layers.values())
    assert report["shared_parameters"]["before"] - report["shared_parameters"]["after"] == saved
    assert report["flops"]["after"] - report["flops"]["before"] == -2 * saved  # of one example, fully connected
    assert set(report["metrics"]) == {"before", "after"}


def test_the_best_checkpoint_holds_the_compressed_model(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    payload = load_checkpoint(folder / "checkpoints" / "best.pt")
    run = rebuild(experiment_from_dict(payload["config"]), payload)
    assert run.model.count_parameters() == summary["parameters"]
    assert run.model.count_parameters()["shared"] == summary["compression"]["shared_parameters"]["after"]
    assert evaluate(run, "test") == summary["metrics"]["test"] == summary["compression"]["metrics"]["after"]["test"]


def test_the_last_one_goes_on_uncompressed_and_is_compressed_anew(folder: Path, tmp_path: Path) -> None:
    straight = Trainer(build(digits(regularizers=TERMS, training=training(epochs=2))), tmp_path / "straight").fit()
    went_on = Trainer(build(digits(regularizers=TERMS, training=training(epochs=2))), folder, resume="must").fit()
    assert went_on["metrics"] == straight["metrics"] and went_on["compression"] == straight["compression"]


def test_a_finished_run_s_end_can_be_made_again(folder: Path) -> None:
    before = json.loads((folder / "summary.json").read_text())
    epochs = before["epochs"]
    again = Trainer(build(digits(regularizers=TERMS, training=training(epochs=epochs))), folder, resume="must").fit()
    assert again["compression"] == before["compression"] and again["metrics"] == before["metrics"]


def test_export_and_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = folder / "checkpoints" / "best.pt"
    assert main(["export", str(best), "--format", "torch-export", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    summary = json.loads((folder / "summary.json").read_text())
    assert told["parameters"] == summary["parameters"]["total"]
    program = torch.export.load(best.with_suffix(".pt2"))
    assert program.module()({"digits": torch.zeros(3, 1, 8, 8)})["digit"].shape == (
        3,
        10,
    )


def test_another_run_starts_from_a_compressed_trunk(folder: Path) -> None:
    best = folder / "checkpoints" / "best.pt"
    payload = load_checkpoint(best)
    compressed = rebuild(experiment_from_dict(payload["config"]), payload)
    trunk = {**digits().resolved()["trunk"], "init_from": str(best)}
    x = {"digits": torch.rand(5, 1, 8, 8)}
    for terms in ([], [{"name": "multi_nuclear_norm"}]):  # dense, or factorized anew
        run = build(digits(trunk=trunk, regularizers=terms))
        for model in (run.model, compressed.model):
            model.eval()
        with torch.no_grad():
            found, wanted = (model.representations(x, ["digit"])["digit"] for model in (run.model, compressed.model))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
