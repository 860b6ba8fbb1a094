"""Exported table models describe the encoding of rows, and accept rows of any origin."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.cli import main
from mtlcli.config import experiment_from_dict
from mtlcli.training.assembly.build import build
from mtlcli.training.checkpoint.file import plain, save_checkpoint
from mtlcli.training.export import INTERFACE, Cleaned, description_path, export, interface
from mtlcli.training.run import Run
from tests.training.experiments import training

ROWS = 40
TEXT = ["time,height,city,grade,fraud,price,kind"] + [
    f"{1_700_000_000 + 7 * row},{'' if row % 5 == 4 else 1.5 + 0.1 * row},"
    f"{'' if row % 7 == 3 else ('Rome', 'Oslo')[row % 2]},"
    f"{row % 3 + 1},{'fraud' if row % 4 == 0 else 'legit'},{100 + row},{'abc'[row % 3]}"
    for row in range(ROWS)
]


def make(folder: Path, trunk: dict[str, Any]) -> Run:
    (folder / "t.csv").write_text("\n".join(TEXT) + "\n")
    targets = {"fraud": "classes", "price": "real", "kind": "classes"}
    return build(experiment_from_dict({
        "name": "table",
        "datasets": {"t": {"name": "csv", "path": str(folder / "t.csv"), "targets": targets, "categorical": ["grade"]}},
        "tasks": {
            "fraud": {"dataset": "t", "kind": {"name": "binary", "positive": "fraud"}},
            "price": {"dataset": "t", "kind": "regression"},
            "kind": {"dataset": "t", "kind": "classification"},
        },
        "trunk": trunk,
        "training": training(),
    }))  # fmt: skip


@pytest.fixture(params=[{"name": "mlp", "hidden": [8], "features": 4}, {"name": "tabular", "hidden": [8]}], ids=str)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    changed_run = make(tmp_path, request.param)
    with torch.no_grad():  # vectors of unseen categories are drawn in training
        for parameter in changed_run.model.parameters():
            parameter.add_(0.01)
    return changed_run


NAN, INF = float("nan"), float("inf")
# time, height, city, grade: numbers less the offset, codes
ODD = torch.tensor([
    [0.0, NAN, 2, 2], [NAN, 2.0, 3, 4], [1.0, 2.0, NAN, 2], [1.0, 2.0, 4, INF], [1.0, 2.0, -1, 5], [1.0, 2.0, 2.5, 1e9],
    [1.0, 2.0, -INF, 1], [1.0, 2.0, 1, 0],
])  # fmt: skip


def safe(run: Run) -> Tensor:
    """Replace NaN by the mean of a number, and invalid codes by 0."""
    height, time = (next(c.mean for c in run.specs["t"].columns if c.name == name) for name in ("height", "time"))
    rows = [
        [0.0, height, 2, 2], [time, 2.0, 3, 4], [1.0, 2.0, 0, 2], [1.0, 2.0, 0, 0], [1.0, 2.0, 0, 0], [1.0, 2.0, 0, 0],
        [1.0, 2.0, 0, 1], [1.0, 2.0, 1, 0],
    ]  # fmt: skip
    return torch.tensor(rows)


def test_invalid_codes_count_as_unseen_and_nan_as_the_mean(run: Run) -> None:
    assert torch.equal(Cleaned(run.specs["t"].columns)(ODD), safe(run))


def expected(run: Run) -> dict[str, Tensor]:
    run.model.eval()
    with torch.no_grad():
        return run.model({"t": safe(run)})


def check(document: dict[str, Any], run: Run) -> None:
    """The description gives the encoding of every row, and the meaning of the outputs."""
    columns = document["inputs"]["t"]["columns"]
    assert [column["name"] for column in columns] == ["time", "height", "city", "grade"]
    header = TEXT[0].split(",")
    encoded = np.empty((ROWS, len(columns)), np.float32)
    for row, line in enumerate(TEXT[1:]):
        cells = dict(zip(header, line.split(","), strict=True))
        for column in columns:
            cell = cells[column["name"]]
            if column["type"] == "number":
                value = float(cell) - column["offset"] if cell else NAN
            else:
                codes, levels = column["codes"], column["levels"]
                value = (codes["first"] + levels.index(cell) if cell in levels else codes["unknown"]) if cell else (
                    codes["missing"]
                )  # fmt: skip
            encoded[row, column["position"]] = value
    theirs = run.datasets["t"].examples("train", 0).inputs
    assert isinstance(theirs, Tensor)
    assert torch.equal(Cleaned(run.specs["t"].columns)(torch.from_numpy(encoded)), theirs)
    outputs = document["outputs"]
    assert outputs["fraud"]["classes"] == ["fraud", "legit"] and outputs["fraud"]["positive"] == "fraud"
    assert (outputs["fraud"]["values"], outputs["fraud"]["probabilities"]) == ("logits", "sigmoid")
    assert (outputs["kind"]["classes"], outputs["kind"]["probabilities"]) == (["a", "b", "c"], "softmax")
    assert (outputs["price"]["values"], outputs["price"]["dtype"]) == ("predictions", "float64")
    assert "experiment" in document and "/" not in document["experiment"]["datasets"]["t"]["path"]


def test_torch_export(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    export(run, "torch-export", path)
    extra = {INTERFACE: ""}
    program = torch.export.load(path, extra_files=extra)
    torch.testing.assert_close(dict(program.module()({"t": ODD})), expected(run))
    document = json.loads(extra[INTERFACE])
    assert document == json.loads(description_path(path).read_text())
    check(document, run)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter and of onnx, as they are imported
def test_onnx(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export(run, "onnx", path)
    import onnx
    from onnx.reference import ReferenceEvaluator

    outputs = ReferenceEvaluator(str(path)).run(None, {"t": ODD.numpy()})
    for output, wanted in zip(outputs, expected(run).values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(output), wanted, rtol=1e-4, atol=1e-5)
    document = {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}
    assert document == json.loads(description_path(path).read_text())
    check(document, run)


def test_safetensors_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors import safe_open

    run = make(tmp_path, {"name": "mlp", "hidden": [8], "features": 4})
    specs = {alias: spec.to_dict() for alias, spec in run.specs.items()}
    payload = {"config": run.experiment.resolved(), "specs": specs, "model": plain(dict(run.model.state_dict()))}
    save_checkpoint(tmp_path / "best.pt", payload)
    assert main(["export", str(tmp_path / "best.pt"), "--format", "safetensors"]) == 0
    path = tmp_path / "best.safetensors.json"
    assert f"inputs and outputs: {path}" in capsys.readouterr().out
    document = json.loads(path.read_text())
    check(document, run)
    with safe_open(str(tmp_path / "best.safetensors"), "pt") as file:
        assert {key: json.loads(file.metadata()[key]) for key in document} == document


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{20 + 7 * row % 23},{('Oslo', 'Rome')[row % 2]},{row % 3 % 2}" for row in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["age,city,y", *rows]))
    run = build(experiment_from_dict({
        "datasets": {"people": {"name": "csv", "path": str(tmp_path / "t.csv"), "targets": ["y"]}},
        "tasks": {"y": {"dataset": "people", "kind": "binary"}},
        "trunk": {"name": "mlp", "hidden": [8], "features": 4},
        "training": training(),
    }))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    export(run, "torch-export", Path("best.pt2"))
    text = (Path(__file__).parents[2] / "docs/export.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    with torch.no_grad():
        torch.testing.assert_close(names["logits"]["y"], run.model({"people": torch.tensor([[31.0, 2.0]])})["y"])


def test_the_help_describes_the_encoding_of_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in ("raw", "missing", "category", "code", "logits", ".json"):
        assert word in shown


def test_the_description_of_a_file_with_the_longest_name() -> None:
    assert description_path(Path("a/best.onnx")) == Path("a/best.onnx.json")
    assert len(description_path(Path("y" * 255)).name) == 255


@pytest.mark.parametrize(("dates", "form"), [(["day"], "ISO 8601"), ({"day": "%Y-%m-%d"}, "%Y-%m-%d")])
def test_a_date_is_described_by_its_format(tmp_path: Path, dates: Any, form: str) -> None:
    (tmp_path / "t.csv").write_text(
        "day,x,y\n" + "".join(f"2023-07-{row + 1:02},{row % 3},{row}\n" for row in range(28))
    )
    run = build(experiment_from_dict({
        "datasets": {"t": {"name": "csv", "path": str(tmp_path / "t.csv"), "targets": ["y"], "dates": dates}},
        "tasks": {"y": {"dataset": "t", "kind": "regression"}},
        "trunk": {"name": "mlp", "hidden": [4], "features": 4},
        "training": training(),
    }))  # fmt: skip
    day, x = interface(run, run.model.eval()({"t": torch.zeros(2, 2)}))["inputs"]["t"]["columns"]
    assert day["date"] == f"{form}; x is the number of days since 1970-01-01 00:00 UTC" and "date" not in x
