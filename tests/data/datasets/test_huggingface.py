from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

import mtlcli
from mtlcli.cli import main
from mtlcli.data.base import Dataset
from mtlcli.data.datasets.huggingface import HuggingFace
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, DatasetSpec
from mtlcli.training.checkpoint.file import load_checkpoint
from tests.data.hub_sets import people, write_parquet

library = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def inputs_of(dataset: Dataset, split: str) -> list[list[float]]:
    examples = dataset.examples(split, 0)
    assert isinstance(examples.inputs, torch.Tensor) and examples.rows is not None
    return examples.inputs[examples.rows].tolist()  # type: ignore[no-any-return]


def labels_of(dataset: Dataset, split: str, target: str) -> list[Any]:
    return dataset.examples(split, 0).labels(target).tolist()


def test_a_set_is_encoded_as_the_same_rows_in_a_table(tmp_path: Path) -> None:
    splits = {"train": people(60), "test": people(30, 1)}
    files = {split: tmp_path / f"{split}.csv" for split in splits}
    for split, table in splits.items():
        numbers = table.set_column(3, "member", table["member"].cast(pa.int8()))
        pyarrow.csv.write_csv(numbers, files[split])
    targets = {"income": "real", "married": "binary"}
    table = TableDataset(path=str(files["train"]), test_path=str(files["test"]), targets=targets)
    folder = write_parquet(tmp_path / "set", splits)
    found = HuggingFace(path=str(folder), targets=targets)
    expected = table.describe()
    expected = replace(expected, targets={name: replace(t, missing=True) for name, t in expected.targets.items()})
    assert found.describe() == expected
    for split in ("train", "val", "test"):
        assert inputs_of(found, split) == inputs_of(table, split)
        for target in targets:
            np.testing.assert_array_equal(labels_of(found, split, target), labels_of(table, split, target))
    assert found.recorded() == table.recorded()


def test_test_is_drawn_by_content_from_a_set_without_splits(tmp_path: Path) -> None:
    table = people(80)
    pyarrow.csv.write_csv(table, tmp_path / "all.csv")
    drawn = HuggingFace(path=str(tmp_path / "all.csv"), targets=["income"], categorical=["town"])
    shuffled = table.take(np.random.default_rng(0).permutation(80))
    pq.write_table(shuffled, tmp_path / "all.parquet")
    again = HuggingFace(path=str(tmp_path / "all.parquet"), targets=["income"], categorical=["town"])
    assert drawn.describe().splits == again.describe().splits == ("train", "val", "test")
    assert drawn.draws_test()
    for split in ("train", "val", "test"):
        assert sorted(labels_of(drawn, split, "income")) == sorted(labels_of(again, split, "income"))


def save(folder: Path, features: dict[str, Any], **columns: list[Any]) -> Path:
    values = {"x": [float(n) for n in range(len(next(iter(columns.values()))))], **columns}
    types = library.Features({"x": library.Value("float32"), **features})
    rows = library.Dataset.from_dict(values, features=types)
    library.DatasetDict({"train": rows, "validation": rows.select(range(2))}).save_to_disk(str(folder))
    return folder


def test_types_of_targets(tmp_path: Path) -> None:
    make = library
    label = make.ClassLabel(names=["low", "high", "never"])
    folder = save(
        tmp_path / "set",
        {"risk": label, "kind": make.Value("string"), "paid": make.Value("bool"),
         "tags": make.List(make.Value("string")), "marks": make.List(make.ClassLabel(names=["b", "a"])),
         "score": make.Value("float64")},
        risk=[0, 1, -1, None], kind=["u", "v", None, "u"], paid=[True, False, None, True],
        tags=[["red"], [], None, ["blue", "red"]], marks=[[1], [0, 1], [], None], score=[0.5, None, 2.5, 1.0],
    )  # fmt: skip
    targets = ["risk", "kind", "paid", "tags", "marks", "score"]
    found = HuggingFace(path=str(folder), targets=targets)
    spec = found.describe()
    assert DatasetSpec.from_dict(spec.to_dict()) == spec
    assert {name: (t.type, t.classes) for name, t in spec.targets.items()} == {
        "risk": ("classes", ("low", "high", "never")),  # all classes of the set, in its order
        "kind": ("classes", ("u", "v")),
        "paid": ("binary", None),
        "tags": ("multilabel", ("blue", "red")),
        "marks": ("multilabel", ("b", "a")),
        "score": ("real", None),
    }
    assert all(target.missing for target in spec.targets.values())
    assert spec.splits == ("train", "val") and [column.name for column in spec.columns] == ["x"]
    nan = float("nan")
    expected: dict[str, Any] = {
        "risk": [0, 1, IGNORE_INDEX, IGNORE_INDEX],
        "kind": [0, 1, IGNORE_INDEX, 0],
        "paid": [1, 0, nan, 1],
        "tags": [[0, 1], [0, 0], [nan, nan], [1, 1]],
        "marks": [[0, 1], [1, 1], [0, 0], [nan, nan]],
        "score": [0.5, nan, 2.5, 1.0],
    }
    for name, labels in expected.items():
        np.testing.assert_array_equal(labels_of(found, "train", name), labels)
    again = HuggingFace(path=str(folder), targets=targets)
    assert again.restore(spec) == spec


def test_tags_of_words(tmp_path: Path) -> None:
    make = library
    folder = save(
        tmp_path / "set",
        {"words": make.List(make.Value("string")), "ner": make.List(make.ClassLabel(names=["O", "B-X"])),
         "pos": make.List(make.Value("string"))},
        words=[["a", "b c", ""], ["d"], ["e", "f"]], ner=[[0, 1, -1], [1], None],
        pos=[["N", "V", "N"], ["V"], ["N", None]],
    )  # fmt: skip
    found = HuggingFace(path=str(folder), text=["words"], targets={"ner": "tags", "pos": "tags"})
    found.keep_texts(16, False)
    spec = found.describe()
    assert [spec.targets[name].classes for name in ("ner", "pos")] == [("O", "B-X"), ("N", "V")]
    n = IGNORE_INDEX
    assert labels_of(found, "train", "ner") == [[0, 1, n], [1, n, n], [n, n, n]]
    assert labels_of(found, "train", "pos") == [[0, 1, 0], [1, n, n], [0, n, n]]
    inputs = found.examples("train", 0).inputs
    assert isinstance(inputs, TextRows)
    assert next(inputs.blocks())[:3] == [(["a", "b c", ""],), (["d"],), (["e", "f"],)]
    wrong = HuggingFace(path=str(folder), text=["words"], targets={"ner": "tags"}, streaming=True)
    with pytest.raises(ConfigError, match="the tags of ner can't be streamed"):
        wrong.keep_texts(16, False)


def test_class_numbers_may_be_declared_as_numbers(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", {"y": library.ClassLabel(names=["no", "yes"])}, y=[0, 1, 1, 0])
    found = HuggingFace(path=str(folder), targets={"y": "binary"})
    assert found.describe().targets["y"].type == "binary" and labels_of(found, "train", "y") == [0, 1, 1, 0]


def test_lists_and_records_are_no_features(tmp_path: Path) -> None:
    byte = library.Value("int8")
    types = {"y": library.Value("bool"), "l": library.List(byte), "r": {"a": byte}}
    folder = save(tmp_path / "set", types, y=[True, False], l=[[1], [2]], r=[{"a": 1}] * 2)
    found = HuggingFace(path=str(folder), targets=["y"])
    assert [column.name for column in found.describe().columns] == ["x"]
    assert "not used as features, since they hold lists, records or images: r, l" in found.notes()
    with pytest.raises(ConfigError, match="the feature column 'r' holds lists, records or images"):
        HuggingFace(path=str(folder), targets=["y"], features=["x", "r"]).describe()


def test_files_are_assigned_to_splits(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", {"a": people(20), "b": people(10), "c": people(10)})
    splits = {"train": "a-*.parquet", "val": "b-00000-of-00002.parquet"}
    found = HuggingFace(path=str(folder), targets=["income"], splits=splits)
    assert found.describe().splits == ("train", "val")
    assert [len(found.examples(split, 0)) for split in splits] == [20, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"train": "trian"}}, "no split 'trian', which `splits` names for 'train'. Did you mean 'train'?"),
        ({"splits": {"train": "../x.csv"}}, "is not a file or pattern of files inside"),
        ({"splits": {"train": "x-*.csv"}}, "no such file"),
        ({"targets": {"income": "multilabel"}}, "is declared `multilabel`, but its column doesn't hold lists"),
        ({"config": "first"}, "BuilderConfig 'first' not found"),
        ({"targets": ["incomes"]}, "no column 'incomes', which `targets` names. Did you mean 'income'?"),
        ({"path": "owner/unknown"}, "run `hf download --repo-type dataset owner/unknown --local-dir FOLDER`"),
        ({"path": "no folder"}, "no such file or folder, and not the id of a set on the hub"),
        ({"path": "./nothing.parquet"}, "nothing.parquet: no such file"),
    ],
)
def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str) -> None:
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    folder = write_parquet(tmp_path / "set", {"train": people(20), "test": people(10)}, 1)
    with pytest.raises(ConfigError) as caught:
        HuggingFace(**{"path": str(folder), "targets": ["income"], **options}).describe()
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_an_invalid_value_is_located_by_split_and_row(tmp_path: Path) -> None:
    table = people(20)
    test = table.slice(0, 5).set_column(2, "town", pa.array(["Ulm", "Bonn", "Rom", "Ulm", "Ulm"]))
    folder = write_parquet(tmp_path / "set", {"train": table, "test": test}, 1)
    with pytest.raises(ConfigError, match="split 'test', row 2: target 'town' has the class 'Rom'"):
        HuggingFace(path=str(folder), targets=["town"]).describe()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(ConfigError, match=r"can't be opened: .*Expected 2 fields in line 3, saw 3"):
        HuggingFace(path=str(tmp_path / "x.csv"), targets=["a"]).describe()


def test_the_documented_set_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[3] / "docs/huggingface.md").read_text()
    block, streamed = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    rng = np.random.default_rng(0)
    rows = pa.table({
        "income": rng.choice(["high", "low", None], 60), "education": rng.integers(1, 4, 60),
        "languages": [[["de"], ["fr", "de"], [], None][at % 4] for at in range(60)],
        "postcode": rng.choice([50667, 10115], 60), "age": rng.integers(18, 80, 60), "name": ["A", "B"] * 30,
    })  # fmt: skip
    write_parquet(tmp_path / "people", {"train": rows, "validation": rows, "test": rows}, 1)
    tasks = """
tasks:
  income: {dataset: people, kind: classification}
  education: {dataset: people, kind: classification}
  languages: {dataset: people, kind: multilabel}
trunk: {name: tabular, hidden: [8], features: 8}
training: {epochs: 1, batch_size: 8}
"""
    (tmp_path / "people.yaml").write_text(block + tasks)
    (tmp_path / "streamed.yaml").write_text(
        f"{streamed}tasks: {{income: {{dataset: people, kind: classification}}}}\ntrunk: mlp\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["train", "people.yaml", "--run-dir", "run"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    payload = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    spec = DatasetSpec.from_dict(payload["specs"]["people"])
    assert {name: target.class_names for name, target in spec.targets.items()} == {
        "income": ("high", "low"), "education": ("1", "2", "3"), "languages": ("de", "fr")
    }  # fmt: skip
    assert [(c.name, c.levels) for c in spec.columns] == [("postcode", ("10115", "50667")), ("age", None)]
    assert spec.splits == ("train", "val", "test")
    assert main(["eval", "run/checkpoints/last.pt", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]["income"]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert metrics == summary["metrics"]["test"]["income"]
    assert main(["train", "streamed.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    model = mtlcli.load(tmp_path / "run/checkpoints/last.pt")
    predictions = model.predict({"postcode": [50667, None], "age": [30, 40], "income": ["low", None]})
    assert len(predictions["income"].labels) == 2


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    for seed in (0, 1):
        pq.write_table(people(30, seed), tmp_path / "people.parquet")
        os.utime(tmp_path / "people.parquet", (seed, seed))
        found = HuggingFace(path=str(tmp_path / "people.parquet"), targets=["income"], test=0, val=0)
        assert labels_of(found, "train", "income") == pytest.approx(people(30, seed)["income"].to_pylist())


def test_the_library_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"needs the library `datasets` .*: pip install 'mtlcli\[huggingface\]'"):
        HuggingFace(path="x.csv", targets=["y"]).describe()
