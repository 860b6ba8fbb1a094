"""Tables whose splits are separate files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mtlcli.cli import main
from mtlcli.data.datasets.table import TableDataset
from mtlcli.errors import ConfigError

TRAIN = "x,town,y\n1,Bonn,0\n2,Ulm,1\n3,Bonn,1\n4,Ulm,0\n"
TEST = "town,extra,y,x\nUlm,a,1,30\nRom,b,0,20\n"


def write(tmp_path: Path, train: str = TRAIN, test: str = TEST) -> dict[str, Any]:
    (tmp_path / "train.csv").write_text(train)
    (tmp_path / "test.csv").write_text(test)
    return {"path": str(tmp_path / "train.csv"), "test_path": str(tmp_path / "test.csv"), "targets": ["y"]}


def rows(dataset: TableDataset, split: str) -> list[list[float]]:
    examples = dataset.examples(split, 0)
    assert isinstance(examples.inputs, torch.Tensor) and examples.rows is not None
    inputs, labels = examples.inputs[examples.rows], examples.targets["y"][examples.rows]
    return torch.cat([inputs, labels[:, None]], 1).tolist()  # type: ignore[no-any-return]


def test_a_file_for_each_split(tmp_path: Path) -> None:
    """Columns are matched by name, in the order of the first file; statistics come from the training file only."""
    dataset = TableDataset(**write(tmp_path), val_path=str(tmp_path / "test.csv"))
    spec = dataset.describe()
    assert spec.splits == ("train", "val", "test")
    assert [(c.name, c.levels, c.mean) for c in spec.columns] == [("x", None, 2.5), ("town", ("Bonn", "Ulm"), 0.0)]
    assert rows(dataset, "train") == [[1, 2, 0], [2, 3, 1], [3, 2, 1], [4, 3, 0]]
    assert rows(dataset, "val") == rows(dataset, "test") == [[30, 3, 1], [20, 0, 0]]


def test_val_is_drawn_from_the_training_file(tmp_path: Path) -> None:
    dataset = TableDataset(**write(tmp_path), val=0.3)
    assert dataset.describe().splits == ("train", "val", "test")
    assert sorted(rows(dataset, "train") + rows(dataset, "val")) == [[1, 2, 0], [2, 3, 1], [3, 2, 1], [4, 3, 0]]
    assert len(rows(dataset, "test")) == 2
    dataset = TableDataset(**{**write(tmp_path), "test_path": None, "val_path": str(tmp_path / "test.csv")})
    assert dataset.describe().splits == ("train", "val") and len(rows(dataset, "train")) == 4


WRONG = {
    "no target": ("x,town\n1,Ulm\n", {}, "test.csv: no column 'y', which `targets` names"),
    "no feature": ("x,y\n1,0\n", {}, "test.csv: no column 'town', which `the header of .*train.csv` names"),
    "a bad cell": ("x,town,y\n1,Ulm,0\nz,Ulm,1\n", {}, r"test.csv:3: 'z' in column 'x' is not a finite number"),
    "a class": ("x,town,y\n1,Ulm,2\n", {"targets": {"y": "classes"}}, r"test.csv:2: target 'y' has the class '2'"),
    "ragged": ("x,town,y\n1,Ulm\n", {}, r"test.csv:2: 2 values"),
}


@pytest.mark.parametrize(("test", "options", "message"), WRONG.values(), ids=WRONG)
def test_errors_name_the_file(tmp_path: Path, test: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableDataset(**{**write(tmp_path, test=test), **options}).describe()


def test_training_rows_in_the_file_of_a_split_are_noted(tmp_path: Path) -> None:
    """In any order of rows and columns, and in another spelling of the numbers."""
    options = write(tmp_path, test="town,y,x\nUlm,0,4.0\nBonn,1,3.0\nRom,0,9\n")
    (note,) = (note for note in TableDataset(**options).notes() if "too good" in note)
    assert re.fullmatch(r"2 of the 3 rows of \S+test.csv are also rows of \S+train.csv, .* the split 'test' .*", note)
    assert not [note for note in TableDataset(**write(tmp_path)).notes() if "too good" in note]


def test_unused_columns_may_be_absent(tmp_path: Path) -> None:
    options = write(tmp_path, test="x,y\n1,0\n")
    assert TableDataset(**options, exclude=["town"]).describe().input_shape == (1,)
    assert TableDataset(**options, features=["x"]).describe().input_shape == (1,)
    with pytest.raises(ValueError, match="come either from `split_column` or from `test_path`, not both"):
        TableDataset(**options, split_column="town")


def test_training_and_evaluating_with_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = "x,town,y\n" + "".join(f"{at * 7 % 40},{'Bonn' if at % 3 else 'Ulm'},{at % 2}\n" for at in range(40))
    write(tmp_path, train)
    config = {
        "datasets": {"t": {"name": "csv", "path": "train.csv", "test_path": "test.csv", "targets": ["y"]}},
        "tasks": {"y": {"dataset": "t", "kind": "binary"}},
        "trunk": {"name": "mlp", "hidden": [4], "features": 4},
        "training": {"epochs": 1},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "c.yaml", "--run-dir", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"]["test"] == {"y": 2}
    command = ["eval", "run/checkpoints/best.pt", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == {"y": 2}
    assert main([*command, "datasets.t.test_path=train.csv", "--split", "test"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == {"y": 40}


def test_another_delimiter_is_suggested(tmp_path: Path) -> None:
    for mark, spelled in ((";", ";"), ("\t", "\\t"), ("|", "|")):
        (tmp_path / "t.csv").write_text(mark.join("xy") + "\n" + (mark.join("12") + "\n" + mark.join("34") + "\n") * 5)
        with pytest.raises(ConfigError) as caught:
            TableDataset(path=str(tmp_path / "t.csv"), targets=["y"]).describe()
        assert str(caught.value).endswith(f'set `delimiter: "{spelled}"`')
        assert TableDataset(
            path=str(tmp_path / "t.csv"), targets=["y"], delimiter=mark, test=0.0
        ).describe().splits == (
            "train",
            "val",
        )
    (tmp_path / "t.csv").write_text("x;y\n1,5;2\n")
    with pytest.raises(ConfigError, match=r":2: 2 values, but the header names 1. If .* `delimiter: \";\"`"):
        TableDataset(path=str(tmp_path / "t.csv"), targets=["y"]).describe()


FORMATS = {
    "a workbook": (b"PK\x03\x04\x14\x00", "save the sheet as CSV"),
    "Parquet": (b"PAR1\x15\x04", "a Parquet file"),
    "gzip under another name": (b"\x1f\x8b\x08\x00", "give its name the ending .gz"),
    "UTF-16": ("x,y\n1,2\n".encode("utf-16"), "save it as UTF-8"),
    "Latin-1": ("gr\u00f6\u00dfe,y\n1,2\n".encode("latin-1"), "save the file as UTF-8"),
    "JSON lines": (
        b'{"x": 1, "y": 2}\n',
        "it is JSON: if it has one object in each line, give its name the ending .jsonl",
    ),
    "JSON": (b'[{"x": 1, "y": 2}]\n', "it is a JSON array: write one object in each line"),
    "Excel's first line": (b"sep=;\nx;y\n1;2\n", "t.csv:1: the line sets the delimiter for Excel"),
    "joined files": (b"x,y\na,b\nx,y\nc,d\n", "t.csv:3: repeats the header"),
}


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(("content", "message"), FORMATS.values(), ids=FORMATS)
def test_files_in_another_format(tmp_path: Path, content: bytes, message: str, delimiter: str) -> None:
    (tmp_path / "t.csv").write_bytes(content.replace(b",", delimiter.encode()))
    with pytest.raises(ConfigError, match=message):
        TableDataset(path=str(tmp_path / "t.csv"), targets=["y"], delimiter=delimiter).describe()
