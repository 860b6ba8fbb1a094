from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtlcli.cli.app import app

CONFIG = """
name: two
datasets: {a: {name: digits}, b: {name: digits}}
tasks:
  digit: {dataset: a, target: digit, kind: classification}
  parity: {dataset: b, target: parity, kind: binary, head: {name: mlp, hidden: [7]}}
trunk: {name: mlp, hidden: [32], features: 16}
"""


def summary(tmp_path: Path, *more: str) -> str:
    (tmp_path / "two.yaml").write_text(CONFIG)
    result = CliRunner().invoke(app, ["summary", str(tmp_path / "two.yaml"), *more])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_layers_parameters_and_flops(tmp_path: Path) -> None:
    document = json.loads(summary(tmp_path, "--json"))
    layers = document["layers"]
    assert layers["trunk.fc1"] == {"kind": "Linear", "of": None, "shape": [32], "parameters": 65 * 32,
                                   "flops": 2 * 2 * 64 * 32}  # fmt: skip
    assert layers["trunk.fc2"]["parameters"] == 33 * 16
    assert layers["heads.digit"]["of"] == "digit" and layers["heads.digit"]["shape"] == [10]
    assert sum(layer["parameters"] for layer in layers.values()) == document["parameters"]["total"]
    shared = sum(layer["parameters"] for layer in layers.values() if layer["of"] is None)
    assert shared == document["parameters"]["shared"] == 65 * 32 + 33 * 16
    trunk = 2 * (64 * 32 + 32 * 16)
    assert document["flops_per_sample"] == {"a": trunk + 2 * 16 * 10, "b": trunk + 2 * (16 * 7 + 7)}
    assert sum(layer["flops"] for layer in layers.values()) == sum(document["flops_per_sample"].values())


def test_factorized_layers_are_counted_as_trained(tmp_path: Path) -> None:
    term = "regularizers=[{name: multi_nuclear_norm, layers: [fc1], rank: 3}]"
    document = json.loads(summary(tmp_path, term, "--json"))
    assert document["layers"]["trunk.fc1"]["parameters"] == 3 * (64 + 32) + 32


@pytest.mark.parametrize("text", ["trunk.fc1", "shared; digit 170, parity 127;", "FLOPs per sample"])
def test_the_printed_summary(tmp_path: Path, text: str) -> None:
    assert text in summary(tmp_path)


def test_sample_spaces_and_the_meaning_of_an_epoch(tmp_path: Path) -> None:
    changes = [
        "tasks.parity.where={target: digit, equals: [2, 3]}",
        "training.sampling={rates: {a: 3, b: 1}, limit: 300}",
    ]
    document = json.loads(summary(tmp_path, *changes, "--json"))
    assert (document["tasks"]["digit"]["where"], document["tasks"]["parity"]["where"]) == (None, "digit = 2 or 3")
    labels = document["data"]["b"]["targets"]["parity where digit = 2 or 3"]["labels"]["train"]
    classes = document["data"]["b"]["targets"]["digit"]["classes"]
    assert labels == classes["2"] + classes["3"]
    size = sum(classes.values())
    assert document["examples_per_epoch"] == {
        "a": {"examples": 300, "size": size, "passes": 300 / size},
        "b": {"examples": 100, "size": size, "passes": 100 / size},
    }
    assert "an epoch: 300 examples of a (0.232 passes), 100 of b (0.0773 passes)" in summary(tmp_path, *changes)
    assert "an epoch" not in summary(tmp_path)


def test_the_gradients_that_a_weighting_combines(tmp_path: Path) -> None:
    shared = 65 * 32 + 33 * 16
    assert "gradients" not in json.loads(summary(tmp_path, "--json"))
    document = json.loads(summary(tmp_path, "weighting=mgda", "--json"))
    assert document["gradients"] == {"by": "parameters", "jacobian_bytes": 4 * 2 * shared}
    assert "gradients by last layer\n" in summary(tmp_path, "weighting=gradnorm")
    assert "gradients by parameters: 0.0209 MB for all tasks\n" in summary(tmp_path, "weighting=pcgrad")
    chosen = "weighting={name: pcgrad, gradients: blockwise}"
    assert "gradients by blocks of parameters\n" in summary(tmp_path, chosen)
