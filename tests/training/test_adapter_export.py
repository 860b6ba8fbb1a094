"""Exported adapters and models with merged adapters."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtlcli.cli.app import main
from mtlcli.errors import ConfigError
from mtlcli.models.adapters.routing import RoutedSharing
from mtlcli.training.adapter_export import export_adapters, merged_run
from mtlcli.training.run import Run
from tests.training.assembly.test_adaptation import FORMS, batch, make

CNN = {"name": "cnn", "widths": [3, 4], "features": 4, "dropout": 0.0}
LOW_RANK = ("shared", "per_task", "shared_and_per_task", "mtl_lora")


def trained(form: str, train: list[str], trunk: dict[str, Any] = CNN) -> Run:
    """Return a run with random adapters, and random changes of the trunk's own parameters that are trained."""
    run, _ = make(form, trunk=trunk, adapters={**FORMS[form], "targets": ["*"], "train": train})
    with torch.no_grad():
        for parameter in (p for p in run.model.sharing.trunks()["trunk"].parameters() if p.requires_grad):
            parameter.mul_(0.2).add_(0.1 * torch.randn_like(parameter))
    return run


@torch.no_grad()
def test_peft_has_the_outputs_of_exported_adapters(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        import peft
    original = make("shared", trunk=CNN, adapters=None)[0].model.sharing.trunks()["trunk"].eval()
    for form in LOW_RANK:
        run = trained(form, ["biases", "norms"])
        sharing = run.model.eval().sharing
        x = torch.rand(4, 1, 8, 8)
        folders = export_adapters(run, tmp_path / form, {})
        for folder in folders:
            with warnings.catch_warnings(action="ignore"):
                adapted = peft.PeftModel.from_pretrained(deepcopy(original), folder).eval()
            if isinstance(sharing, RoutedSharing):
                sharing.route.task = folder.name
            expected = sharing.trunks()["trunk"](x)
            assert not torch.allclose(original(x), expected, rtol=1e-2, atol=1e-2)
            torch.testing.assert_close(adapted(x), expected, rtol=1e-5, atol=1e-5)
            heads = load_file(folder / "heads.safetensors")
            names = {key.partition(".")[0] for key in heads}
            assert names == ({folder.name} if len(folders) > 1 else set(run.kinds))
        assert len(folders) == (1 if form == "shared" else len(run.kinds))


@pytest.mark.parametrize("form", ["hydra", "houlsby"])
def test_peft_cannot_represent_other_adapters(form: str, tmp_path: Path) -> None:
    run, _ = make(form)
    with pytest.raises(ConfigError, match="peft has no adapters such as `"):
        export_adapters(run, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", LOW_RANK[1:])
@torch.no_grad()
def test_merged_model_of_one_task_has_its_outputs(form: str) -> None:
    run, _ = make(form)
    inputs = batch(run, 0, 8).inputs
    expected = run.model.eval()(inputs)["other"]
    with pytest.raises(ConfigError, match=r"give a task with --task \(digit, ink, parity, other\)"):
        merged_run(run, None, needs_weights=True)
    with pytest.raises(ConfigError, match=r"--task: no task 'othr'\. Did you mean 'other'"):
        merged_run(run, "othr", needs_weights=True)
    merged = merged_run(run, "other", needs_weights=True)
    outputs = merged.model({"b": inputs["b"]})
    assert list(outputs) == ["other"] and merged.experiment.adapters is None
    torch.testing.assert_close(outputs["other"], expected, rtol=1e-5, atol=1e-5)
    assert not any(".adapter." in key for key in merged.model.state_dict())
    assert set(merged.specs) == {"b"} and set(merged.experiment.tasks) == {"other"}


CONFIG = """
datasets: {digits: digits}
tasks:
  digit: {dataset: digits, kind: classification}
  ink: {dataset: digits, kind: regression}
trunk: {name: mlp, hidden: [8], features: 4}
adapters: {name: lora, rank: 2, arrangement: per_task, targets: [fc2]}
training: {epochs: 1, batch_size: 200, device: cpu, threads: 1}
"""


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run with adapters for each task is trained, evaluated and exported."""
    config, run = tmp_path / "lora.yaml", str(tmp_path / "run")
    config.write_text(CONFIG)
    assert main(["train", str(config), "--run-dir", run]) == 0
    log = capsys.readouterr().err
    assert "659 in total, of which 103 (15.63%) are trained" in log
    assert main(["eval", run]) == 0
    capsys.readouterr()
    assert main(["export", run, "--format", "peft", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [Path(folder).name for folder in document["folders"]] == ["digit", "ink"]
    adapter = json.loads((Path(document["folders"][1]) / "adapter_config.json").read_text())
    assert (adapter["target_modules"], adapter["r"], adapter["lora_alpha"]) == (["fc2"], 2, 16.0)
    assert set(json.loads(Path(document["description"]).read_text())["outputs"]) == {"digit", "ink"}
    out = str(tmp_path / "ink.safetensors")
    assert main(["export", run, "--format", "safetensors"]) == 2
    assert "the adapters of the tasks differ" in capsys.readouterr().err
    assert main(["export", run, "--format", "safetensors", "--task", "ink", "--out", out]) == 0
    assert {key.split(".")[2] for key in load_file(out) if "heads" in key} == {"ink"}
    assert main(["export", run, "--format", "peft", "--task", "ink"]) == 2
    assert main(["export", run, "--format", "peft", "--out", out]) == 2
    plain = tmp_path / "plain.yaml"
    plain.write_text(CONFIG.replace("adapters:", "#"))
    assert main(["train", str(plain), "--run-dir", run + "2"]) == 0
    capsys.readouterr()
    assert main(["export", run + "2", "--format", "peft"]) == 2
    assert "--format peft: the model has no adapters" in capsys.readouterr().err
