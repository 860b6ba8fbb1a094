"""Texts of tables as the inputs of a trunk that reads text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtlcli.data.base import Dataset
from mtlcli.data.content_hash import hash_examples
from mtlcli.data.datasets.digits import Digits
from mtlcli.data.datasets.huggingface import HuggingFace
from mtlcli.data.datasets.reviews import Reviews
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.examples import Examples, StreamedExamples, concat_examples
from mtlcli.data.formats.text_inputs import ask_for_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.errors import ConfigError
from mtlcli.specs import DatasetSpec
from mtlcli.text_spec import TextSpec

WORDS = ["fine", "poor", "soft", "thin", "red", "large"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    rows = ["title,body,age,mood"]
    for row in range(60):
        body = " ".join(generator.choice(WORDS, 1 + row % 5))
        rows.append(f"{'' if row % 4 else 'note'},{body},{20 + row % 7},{row % 2}")
    path = tmp_path / "notes.csv"
    path.write_text("\n".join(rows))
    return path


def open_table(path: Path, length: int | None = 16, **options: Any) -> TableDataset:
    dataset = TableDataset(**{"path": str(path), "text": ["title", "body"], "targets": ["mood"], **options})
    if length is not None:
        ask_for_texts(dataset, length)
    return dataset


def texts(dataset: Dataset, split: str) -> list[tuple[str | None, ...]]:
    examples = dataset.examples(split, 0)
    assert isinstance(examples.inputs, TextRows) and examples.rows is not None
    whole = [row for block in examples.inputs.blocks(7) for row in block]
    return [whole[row] for row in examples.rows.tolist()]


def test_texts_are_the_inputs_and_splits_are_those_of_features(path: Path) -> None:
    dataset, features = open_table(path), open_table(path, None)
    spec = dataset.describe()
    assert spec.text == TextSpec(("title", "body"), 16) and spec.input_shape == (2, 16) and not spec.columns
    assert spec.mean == (0.0,) and spec.std == (1.0,)
    assert DatasetSpec.from_dict(spec.to_dict()) == spec
    assert spec.targets == features.describe().targets
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    for split in ("train", "val", "test"):
        rows = features.examples(split, 0).rows
        assert rows is not None
        assert texts(dataset, split) == [(lines[row][0] or None, lines[row][1]) for row in rows.tolist()]
        assert torch.equal(dataset.examples(split, 0).labels("mood"), features.examples(split, 0).labels("mood"))


def test_other_columns_are_noted(path: Path) -> None:
    dataset = open_table(path)
    dataset.describe()
    note = "the trunk reads text only, so these columns are not used: 'age'"
    assert note in dataset.notes()
    assert note not in open_table(path, exclude=["age"]).notes()
    assert any("has no value in the columns 'title' (" in note for note in dataset.notes())
    report = dataset.report()
    assert report is not None and [(facts.name, facts.type) for facts in report.facts] == [
        ("title", "text"), ("body", "text"),
    ]  # fmt: skip
    unseen = dataset.unseen(dataset.examples("test", 0))
    assert unseen["title"].missing == sum(title is None for title, _ in texts(dataset, "test"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": []}, "list the column of the text, or two columns, under `text`"),
        ({"text": ["title", "body", "age"]}, "`text` lists 3 columns"),
        ({"text": ["titel"]}, r"no column 'titel', which `text` names\. Did you mean 'title'"),
        ({"text": ["empty"]}, "column 'empty' has no text in the training rows"),
    ],
)
def test_options_that_give_no_text(path: Path, options: dict[str, Any], message: str) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{lines[0]},empty", *(f"{line}," for line in lines[1:])]))
    with pytest.raises(ConfigError, match=message):
        open_table(path, **options).describe()


def test_a_dataset_without_texts() -> None:
    with pytest.raises(ConfigError, match="the trunk reads text, and this dataset has none"):
        ask_for_texts(Digits(), 16)


def test_a_checkpoint_restores_texts(path: Path) -> None:
    spec = open_table(path).describe()
    again = open_table(path, features=["title", "body", "age"])
    assert again.restore(spec) == spec
    assert texts(again, "test") == texts(open_table(path), "test")


def test_the_outline_of_a_named_dataset() -> None:
    dataset = Reviews(download=False)
    ask_for_texts(dataset, 64)
    spec = dataset.describe()
    assert spec.text == TextSpec(("title", "review"), 64) and spec.input_shape == (2, 64) and not spec.columns
    assert DatasetSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_of_a_data_set(path: Path, streaming: bool) -> None:
    pytest.importorskip("datasets")
    options: dict[str, Any] = {"path": str(path), "text": ["body"], "targets": ["mood"], "streaming": streaming}
    dataset = HuggingFace(**options)
    ask_for_texts(dataset, 16)
    spec = dataset.describe()
    assert spec.text == TextSpec(("body",), 16) and spec.input_shape == (2, 16)
    bodies = [line.split(",")[1] for line in path.read_text().splitlines()[1:]]
    examples = dataset.examples("all", 0)
    if isinstance(examples, StreamedExamples):
        assert next(examples.first_texts(1000).blocks()) == [(body,) for body in bodies]
    else:
        assert isinstance(examples.inputs, TextRows)
        assert next(examples.inputs.blocks()) == [(body,) for body in bodies]
    assert "the trunk reads text only, so these columns are not used: 'title', 'age'" in dataset.notes()
    again = HuggingFace(**options)
    ask_for_texts(again, 16)
    assert again.restore(spec) == spec


def test_hashes_depend_on_the_texts_only() -> None:
    labels = {"y": torch.tensor([0, 1, 0])}
    first = hash_examples(Examples(TextRows([["a", None, "b"], ["x", "y", "z"]]), labels))
    again = hash_examples(Examples(TextRows([["a", "", "b"], ["x", "y", "z"]]), labels, torch.tensor([2, 1, 0])))
    assert first is not None and again is not None
    assert first[[0, 2]].tolist() == again[[2, 0]].tolist() and first[1] != again[1] and len({*first.tolist()}) == 3


def test_splits_are_joined() -> None:
    train = Examples(TextRows([["a", "b", "c"]]), {"y": torch.arange(3)}, torch.tensor([2, 0]))
    test = Examples(TextRows([["d", "e"]]), {"y": torch.arange(2)})
    whole = concat_examples([train, test])
    assert isinstance(whole.inputs, TextRows)
    assert list(whole.inputs.columns[0]) == ["c", "a", "d", "e"] and whole.targets["y"].tolist() == [2, 0, 0, 1]
