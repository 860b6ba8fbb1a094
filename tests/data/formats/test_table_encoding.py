"""Columns of text and of truth values, from the file to the predictions of a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import HashingVectorizer

import mtlcli
from mtlcli.cli import main
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats import table_encoding
from mtlcli.data.formats.shared_columns import share_columns
from mtlcli.data.formats.text_features import fit_text
from mtlcli.errors import ConfigError, InputError
from mtlcli.specs import TargetSpec
from tests.data.formats.encoded_texts import encode_text

WORDS = ["soft", "small", "awful", "lovely", "blue", "returned"]
HEADER = "title,body,member,age,paid,split"


def row(at: int) -> str:
    title = "" if at % 7 == 3 else f"{WORDS[at % 6]} dress"
    body = f'"{WORDS[at % 6]}, {WORDS[at % 5]} and {WORDS[at % 4]}"'
    member, paid, split = "Ja" if at % 2 else "nein", "Yes" if at % 3 else "n", "train" if at % 4 else "test"
    return f"{title},{body},{member},{20 + at % 17},{paid},{split}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("\n".join([HEADER, *map(row, range(40))]) + "\n", encoding="utf-8")
    return path


def table(path: Path, **options: Any) -> TableDataset:
    given: dict[str, Any] = {
        "path": str(path), "targets": {"paid": "binary"}, "split_column": "split", "text": {"title": 8, "body": 16},
        "ngrams": 2, "booleans": {"member": ["ja", "nein"]}, "val": 0.0,
    }  # fmt: skip
    return TableDataset(**given | options)


def inputs(dataset: TableDataset) -> np.ndarray:
    raw = dataset.whole().inputs
    assert isinstance(raw, torch.Tensor)
    return raw.numpy()


def test_a_text_column_becomes_hashed_features_fitted_on_the_training_rows(path: Path) -> None:
    dataset = table(path)
    spec = dataset.describe()
    assert spec.input_shape == (26,)
    assert [column.source for column in spec.columns] == ["title"] * 8 + ["body"] * 16 + ["member", "age"]
    bodies = [f"{WORDS[at % 6]}, {WORDS[at % 5]} and {WORDS[at % 4]}" for at in range(40)]
    encoding = fit_text([body for at, body in enumerate(bodies) if at % 4], 16, 2)
    assert np.array_equal(inputs(dataset)[:, 8:24], encode_text(bodies, encoding))
    assert not inputs(dataset)[[3, 10], :8].any() and inputs(dataset)[4, :8].any()  # titles 3 and 10 are missing


def test_truth_values_are_numbers_and_binary_targets(path: Path) -> None:
    dataset = table(path)
    assert inputs(dataset)[:4, 24].tolist() == [0, 1, 0, 1]
    assert dataset.whole().targets["paid"][:4].tolist() == [0, 1, 1, 0]
    words = table(path, booleans=["paid"], targets=["paid"], exclude=["member"])
    assert words.describe().targets == {"paid": TargetSpec("binary")}
    assert words.whole().targets["paid"][:4].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("words", ["true false", "T F", "yes no", "Y N", "on off", "1 0"])
def test_words_for_truth_values(path: Path, words: str) -> None:
    yes, no = words.split()
    path.write_text(f"x,b,y\n1,{yes},{yes}\n2,{no},{no}\n3,,{yes}\n4,{yes.upper()},{no.lower()}\n", encoding="utf-8")
    dataset = TableDataset(path=str(path), targets={"y": "binary"}, booleans=["b"], test=0.0, val=0.0)
    column = dataset.describe().columns[1]
    assert (column.levels, column.mean) == (None, pytest.approx(2 / 3))
    assert inputs(dataset)[:, 1].tolist() == pytest.approx([1, 0, 2 / 3, 1])
    assert dataset.whole().targets["y"].tolist() == [1, 0, 1, 0]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no truth value": (
        {"booleans": ["member"]},
        r"t.csv:2: 'nein' in the column 'member' is not a truth value \(true, ",
    ),
    "no truth value in a target": (
        {"targets": ["paid"], "booleans": {"member": ["ja", "nein"], "paid": ["paid", "due"]}},
        r"t.csv:2: 'n' in the target 'paid' is not a truth value \(paid, due, 1, 0\)",
    ),
    "unknown column": ({"text": ["titel"]}, "no column 'titel', which `text` names. Did you mean 'title'"),
    "two declarations": ({"categorical": ["title"]}, "the column 'title' is listed in both `categorical` and `text`"),
    "the same word": ({"booleans": {"member": ["ja", "JA"]}}, "'member' needs two different words"),
    "a target": ({"text": ["paid"], "features": ["paid"]}, "'paid' can't be a feature and a target"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_declarations(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        table(path, **options).describe()


def test_a_text_column_without_text(path: Path) -> None:
    path.write_text("a,y\n,1\n,0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="column 'a' has no text in the training rows; add it to `exclude`"):
        TableDataset(path=str(path), targets=["y"], text=["a"], test=0.0).describe()


def test_texts_with_more_features_than_a_checkpoint_may_have(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_encoding, "MOST_COLUMNS", 25)
    with pytest.raises(ConfigError, match="the features and texts have 26 columns, more than 25"):
        table(path).describe()


def test_columns_of_text_that_look_like_identifiers_suggest_text(path: Path) -> None:
    path.write_text("a,b,y\n" + "".join(f"word{at},{at % 3},{at % 2}\n" for at in range(30)), encoding="utf-8")
    dataset = TableDataset(path=str(path), targets=["y"], test=0.0, val=0.0)
    dataset.describe()
    assert any("or under `text`; to silence" in note for note in dataset.notes())
    assert len(TableDataset(path=str(path), targets=["y"], text=["a"], test=0.0, val=0.0).describe().columns) == 513
    with pytest.raises(ConfigError, match=r"more than 2: it looks like an identifier.* if it is text, list it under"):
        TableDataset(path=str(path), targets=["y"], features=["a"], levels=2, test=0.0).describe()


def test_tables_that_share_a_trunk_share_the_encoding_of_texts(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("\n".join([HEADER, *map(row, range(7, 29))]) + "\n", encoding="utf-8")
    first, second = table(path), table(other)
    specs = share_columns({"a": (first, first.describe()), "b": (second, second.describe())})
    titles = [f"{WORDS[at % 6]} dress" for start, end in ((0, 40), (7, 29)) for at in range(start, end)
              if at % 4 and at % 7 != 3]  # fmt: skip
    assert specs["a"].columns == specs["b"].columns
    assert specs["a"].columns[:8] == fit_text(titles, 8, 2).columns("title")
    third = table(other, ngrams=1)
    with pytest.raises(ConfigError, match="'title' needs the same `text` and `ngrams` in all tables that share"):
        share_columns({"a": (first, first.describe()), "b": (third, third.describe())})


def test_a_trained_model_takes_other_texts(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"name": "csv", "path": str(path), "targets": {"paid": "binary"}, "split_column": "split", "val": 0.0,
               "text": {"title": 8, "body": 16}, "booleans": {"member": ["ja", "nein"]}}  # fmt: skip
    config = {
        "name": "texts",
        "datasets": {"t": options},
        "tasks": {"paid": {"dataset": "t", "kind": "binary"}},
        "trunk": {"name": "tabular", "hidden": [8], "features": 4},
        "training": {"epochs": 1, "batch_size": 8, "device": "cpu", "threads": 1},
        "evaluation": {"split": "train"},
    }
    checkpoint = str(mtlcli.train(config, run_dir=tmp_path / "run", plots=False)["checkpoint"])
    model = mtlcli.load(checkpoint)
    encoded = model.predict(torch.from_numpy(inputs(table(path, ngrams=1))))["paid"].outputs
    cells = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    rows = {
        "title": [line[0] for line in cells],
        "body": [",".join(line[1:-4]).strip('"') for line in cells],
        "member": [line[-4] == "Ja" for line in cells],
        "age": [int(line[-3]) for line in cells],
    }
    assert torch.equal(model.predict(rows)["paid"].outputs, encoded)
    with pytest.raises(InputError, match=r"column 'body' is missing\. The model's columns: title, body, member, age"):
        model.predict({name: values for name, values in rows.items() if name != "body"})
    other = tmp_path / "other.csv"
    other.write_text("body,title,member,age,paid\nnever seen words,,nein,3,yes\nsoft blue,soft,JA,30,no\n")
    assert main(["eval", checkpoint, f"datasets.t.path={other}", "--json", "--split", "all"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["missing"]["t"]["title"]["count"] == 1 and document["metrics"]["paid"]["loss"] > 0
    assert main(["predict", checkpoint, str(other), "--out", str(tmp_path / "predicted.csv")]) == 0
    assert len((tmp_path / "predicted.csv").read_text().splitlines()) == 3
    out = tmp_path / "model.safetensors"
    assert main(["export", checkpoint, "--format", "safetensors", "--out", str(out)]) == 0
    description = json.loads((tmp_path / "model.safetensors.json").read_text())["inputs"]["t"]
    assert [(column["name"], column["type"], column["position"]) for column in description["columns"]] == [
        ("member", "number", 24), ("age", "number", 25), ("title", "text", 0), ("body", "text", 8),
    ]  # fmt: skip
    assert description["columns"][0]["boolean"] == "x is 1 for ja, 0 for nein"
    body = description["columns"][3]
    words = HashingVectorizer(n_features=body["features"], ngram_range=(1, body["ngrams"]), norm=None,
                              token_pattern=r"(?u)\b\w+\b").transform(rows["body"]).toarray()  # fmt: skip
    weighted = words * np.array(body["idf"])
    described = weighted / np.linalg.norm(weighted, axis=1, keepdims=True)
    assert np.allclose(described, inputs(table(path, ngrams=1))[:, 8:24], rtol=1e-6, atol=1e-7)
