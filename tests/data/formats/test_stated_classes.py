"""Classes that the user states, in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtlcli.config import load_experiment
from mtlcli.data.datasets.table import TableDataset
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec

SIZES = ["small", "medium", "large"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("x,size,grade\n1,large,01\n2,small,3\n3,,2.0\n4,small,1\n", encoding="utf-8")
    return path


def table(path: Path, target: dict[str, Any], name: str = "size") -> TableDataset:
    return TableDataset(path=str(path), targets={name: {"type": "classes", "others": "error", **target}},
               features=["x"], test=0.0, val=0.0)  # fmt: skip


def test_the_order_is_kept_and_a_class_may_be_absent(path: Path) -> None:
    dataset = table(path, {"classes": SIZES})
    assert dataset.describe().targets["size"] == TargetSpec("classes", 3, tuple(SIZES), missing=True)
    assert dataset.whole().targets["size"].tolist() == [2, 0, IGNORE_INDEX, 0]
    assert dataset.notes() == ["target 'size': no training row has the class 'medium'"]


def test_numbers_match_in_any_spelling(path: Path) -> None:
    dataset = table(path, {"classes": ["3", "2", "1"]}, "grade")
    assert dataset.whole().targets["grade"].tolist() == [2, 0, 1, 2]
    assert dataset.describe().targets["grade"].classes == ("3", "2", "1")


def test_other_values_are_an_error_or_missing(path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"t.csv:2: target 'size' has the class 'large', which is not among its `classes`: small, larg\. Did you "
        r"mean 'larg'\? Add it, or set `others: missing`",
    ):
        table(path, {"classes": ["small", "larg"]}).describe()
    dataset = table(path, {"classes": ["small", "medium"], "others": "missing"})
    assert dataset.whole().targets["size"].tolist() == [IGNORE_INDEX, 0, IGNORE_INDEX, 0]
    assert dataset.describe().targets["size"].missing
    assert any("1 labels count as missing" in note and "'large' at" in note for note in dataset.notes())
    with pytest.raises(ConfigError, match="'size' has none of its classes in the training rows: red, blue"):
        table(path, {"classes": ["red", "blue"], "others": "missing"}).describe()


def test_a_new_table_is_read_by_the_same_rule(path: Path, tmp_path: Path) -> None:
    stored = DatasetSpec.from_dict(table(path, {"classes": SIZES, "others": "missing"}).describe().to_dict())
    other = tmp_path / "other.csv"
    other.write_text("x,size\n1,medium\n2,huge\n", encoding="utf-8")
    dataset = table(other, {"classes": SIZES, "others": "missing"})
    assert dataset.restore(stored).targets["size"].missing
    assert dataset.whole().targets["size"].tolist() == [1, IGNORE_INDEX]
    with pytest.raises(ConfigError, match=r"other.csv:3: target 'size' has the class 'huge'"):
        table(other, {"classes": SIZES}).restore(stored)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b", "a"], "the target 'size' has the class 'a' more than once"),
        (["1", "2", "1.0"], "the target 'size' has the class '1' more than once"),
        (["a", ""], "the class '' of the target 'size' "),
    ],
)
def test_wrong_classes(path: Path, classes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(path, {"classes": classes})


def config(tmp_path: Path, target: str) -> Path:
    written = tmp_path / "c.yaml"
    written.write_text(
        f"datasets:\n  t: {{name: csv, path: t.csv, targets: {{size: {target}}}}}\n"
        "tasks: {size: {dataset: t, kind: classification}}\ntrunk: mlp\n"
    )
    return written


def test_the_configuration_accepts_numbers_and_keeps_its_form(tmp_path: Path) -> None:
    experiment = load_experiment(config(tmp_path, "{classes: [1, 2.5, three]}"))
    stated = {"type": "classes", "classes": ["1", "2.5", "three"], "others": "error"}
    assert experiment.datasets["t"].options["targets"] == {"size": stated}
    assert experiment.resolved()["datasets"]["t"]["targets"] == {"size": stated}


@pytest.mark.parametrize("target", ["{classes: [a]}", "{classes: [a, b], other: missing}", "ordinal", "{classes: a}"])
def test_wrong_types_in_the_configuration(tmp_path: Path, target: str) -> None:
    message = r"c.yaml:2:40: datasets.t.targets: expected .* or \{classes: \[NAME, NAME, …\], others: .*, found"
    with pytest.raises(ConfigError, match=message):
        load_experiment(config(tmp_path, target))
