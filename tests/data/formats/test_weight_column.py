from __future__ import annotations

from pathlib import Path

import pytest

from mtlcli.data.datasets.table import TableDataset
from mtlcli.errors import ConfigError


def table(folder: Path, weights: list[str], **options: object) -> TableDataset:
    path = folder / "people.csv"
    path.write_text("age,w,income\n" + "".join(f"{20 + i},{w},{i}\n" for i, w in enumerate(weights)), encoding="utf-8")
    options = {"targets": {"income": "real"}, "weight_column": "w", "val": 0.0, "test": 0.0, **options}
    return TableDataset(path=str(path), **options)  # type: ignore[arg-type]


def test_weights_are_read_and_no_feature(tmp_path: Path) -> None:
    dataset = table(tmp_path, ["1", "0.5", "0", "3e2"])
    assert [column.name for column in dataset.describe().columns] == ["age"]
    examples = dataset.examples("train", 0)
    assert examples.sample_weights() is not None
    assert examples.sample_weights().tolist() == [1, 0.5, 0, 300]  # type: ignore[union-attr]
    assert dataset.whole().sample_weights().tolist() == [1, 0.5, 0, 300]  # type: ignore[union-attr]


def test_weights_in_another_notation(tmp_path: Path) -> None:
    dataset = table(tmp_path, ['"1,5"', "2"], decimal=",")
    assert dataset.examples("train", 0).sample_weights().tolist() == [1.5, 2]  # type: ignore[union-attr]


def test_weights_follow_the_rows_of_each_split(tmp_path: Path) -> None:
    dataset = table(tmp_path, [str(i) for i in range(40)], test=0.25, val=0.25)
    dataset.describe()
    for split in ("train", "val", "test"):
        examples = dataset.examples(split, 0)
        assert examples.sample_weights().tolist() == examples.labels("income").tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["1", "", "-2", "-2"], r"people.csv:3: a missing weight in the weight column 'w', expected a number from 0"),
        (["1", "", "-2", "-2"], r"people.csv:4: the weight '-2' in the weight column 'w'.*\(and 1 more such lines\)"),
        (["1", "heavy"], r"people.csv:3: 'heavy' in the weight column 'w' is not a finite number"),
        (["1", "inf"], r"people.csv:3: 'inf' in the weight column"),
        (["1", "1e31"], r"people.csv:3: the weight '1e31' .* expected a number from 0 to 1e\+30"),
        (["0", "0"], r"people.csv: all weights in the weight column 'w' are 0"),
    ],
)
def test_wrong_weights(tmp_path: Path, weights: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table(tmp_path, weights).describe()


def test_an_unknown_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column 'ww', which `weight_column` names\. Did you mean 'w'"):
        table(tmp_path, ["1", "2"], weight_column="ww").describe()
