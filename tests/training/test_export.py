"""Exported models compute what the original model computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mtlcli.cli import main
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build
from mtlcli.training.checkpoint.file import plain, save_checkpoint
from mtlcli.training.export import description_path, export
from mtlcli.training.run import Run
from tests.training.experiments import digits


@pytest.fixture(scope="module")
def run() -> Run:
    tasks = {
        "digit": {"dataset": "a", "target": "digit", "kind": "classification"},
        "ink": {"dataset": "b-2", "target": "ink", "kind": "regression"},
    }
    experiment = digits(
        datasets={"a": {"name": "digits", "val": 0.2}, "b-2": {"name": "digits", "val": 0.2}}, tasks=tasks
    )
    return build(experiment)


@pytest.fixture(scope="module")
def expected(run: Run) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "a": 16 * torch.rand(5, 1, 8, 8, generator=generator),
        "b-2": 16 * torch.rand(1, 1, 8, 8, generator=generator),
    }
    run.model.eval()
    with torch.no_grad():
        return inputs, run.model(inputs)


def test_torch_export(run: Run, expected: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path) -> None:
    export(run, "torch-export", tmp_path / "model.pt2")
    outputs = torch.export.load(tmp_path / "model.pt2").module()(expected[0])
    torch.testing.assert_close(dict(outputs), expected[1])


@pytest.mark.filterwarnings("ignore")  # of torch's exporter and of onnx, as they are imported
def test_onnx(run: Run, expected: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path) -> None:
    export(run, "onnx", tmp_path / "model.onnx")
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(tmp_path / "model.onnx"))
    assert list(evaluator.output_names) == ["digit", "ink"]
    outputs = evaluator.run(None, {alias: x.numpy() for alias, x in expected[0].items()})
    for output, wanted in zip(outputs, expected[1].values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(output), wanted, rtol=1e-4, atol=1e-5)


def test_safetensors(run: Run, tmp_path: Path) -> None:
    from safetensors import safe_open

    export(run, "safetensors", tmp_path / "model.safetensors")
    with safe_open(str(tmp_path / "model.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["experiment"]) == json.loads(json.dumps(run.experiment.resolved()))
        for name, value in run.model.state_dict().items():
            assert torch.equal(file.get_tensor(name), value)


def test_the_description_of_images(run: Run, tmp_path: Path) -> None:
    export(run, "safetensors", tmp_path / "model.safetensors")
    document = json.loads(description_path(tmp_path / "model.safetensors").read_text())
    first = document["inputs"]["b-2"]
    assert (first["shape"], first["range"]) == (["batch", 1, 8, 8], [0, 16]) and "Do not normalize" in first["encoding"]
    assert first["mean"] == list(run.specs["b-2"].mean)
    assert document["outputs"]["digit"]["classes"] == [str(digit) for digit in range(10)]
    assert document["outputs"]["ink"]["values"] == "predictions"


def test_a_missing_package_is_an_error_and_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ConfigError, match=r"needs the package .*pip install 'mtlcli\[export\]'"):
        export(run, "safetensors", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_export_from_the_command_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = {alias: spec.to_dict() for alias, spec in run.specs.items()}
    payload = {"config": run.experiment.resolved(), "specs": specs, "model": plain(dict(run.model.state_dict()))}
    save_checkpoint(tmp_path / "best.pt", payload)
    assert main(["export", str(tmp_path / "best.pt"), "--format", "safetensors", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (
        report["file"] == str(tmp_path / "best.safetensors") and Path(report["file"]).stat().st_size == report["bytes"]
    )
    assert main(["export", str(tmp_path / "best.pt"), "--format", "onnx", "--out", str(tmp_path / "no" / "x")]) == 2
    assert "does not exist" in capsys.readouterr().err
