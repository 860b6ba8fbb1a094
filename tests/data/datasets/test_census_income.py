"""Census-Income: artificial files with the peculiarities of the real ones, and the real ones if available."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlcli.data.base import Examples
from mtlcli.data.datasets._census_columns import NAMES, input_columns
from mtlcli.data.datasets.census_income import ROWS, CensusIncome
from mtlcli.data.download.collection import data_root
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.column_encoding import TrainingTable, fit_column
from mtlcli.data.formats.table_reader import read_table
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec

PERSON = {column.name: column.levels[0] if column.levels else "0" for column in input_columns()} | {
    "education": "Children", "marital stat": "Divorced", "instance weight": "1700.09", "income": "- 50000.",
}  # fmt: skip
PEOPLE = [
    {"age": "73", "hispanic origin": "NA", "marital stat": "Never married", "year": "95"},
    {"capital gains": "99999", "income": "50000+.", "education": "Bachelors degree(BA AB BS)"},
    {"country of birth self": "?", "migration code-change in msa": "?", "state of previous residence": "?"},
    {"country of birth self": "Atlantis", "major occupation code": "Handlers equip cleaners etc "},
    {"education": "Some college but no degree", "detailed industry recode": "51"},
    {"education": "Associates degree-occup /vocational"},
]  # fmt: skip
FILES = {"census-income.data": 6, "census-income.test": 12}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files in the format of the real ones: no header, a blank before every value, the label last."""
    monkeypatch.setattr(CensusIncome, "rows", FILES)
    raw = tmp_path / "census_income/raw"
    raw.mkdir(parents=True)
    for file, amount in FILES.items():
        people = [PERSON | PEOPLE[at % len(PEOPLE)] | {"wage per hour": str(at)} for at in range(amount)]
        (raw / file).write_text("".join(", ".join(person[name] for name in NAMES) + "\n" for person in people))
    return tmp_path


def column(examples: Examples, name: str) -> list[float]:
    at = [column_spec.name for column_spec in input_columns()].index(name)
    assert isinstance(examples.inputs, torch.Tensor)
    values = examples.inputs[:, at]
    return (values if examples.rows is None else values[examples.rows]).tolist()  # type: ignore[no-any-return]


def code(name: str, level: str) -> int:
    (levels,) = (column_spec.levels for column_spec in input_columns() if column_spec.name == name)
    assert levels is not None
    return 2 + levels.index(level)


def test_describe_reads_no_file() -> None:
    spec = CensusIncome(root="nowhere").describe()
    assert spec.input_shape == (38,) and spec.splits == ("train", "val", "test")
    assert {name: target.type for name, target in spec.targets.items()} == dict.fromkeys(
        ["income", "never_married", "education"], "binary"
    )
    assert sum(column_spec.levels is None for column_spec in spec.columns) == 7
    assert len(NAMES) == 42 and NAMES[24] == "instance weight"
    left_out = {"education", "marital stat", "instance weight", "income"}
    assert [column_spec.name for column_spec in spec.columns] == [name for name in NAMES if name not in left_out]
    assert DatasetSpec.from_dict(spec.to_dict()) == spec
    assert all(option.description for option in datasets["census_income"].options.values())


def test_inputs_and_targets(root: Path) -> None:
    train = CensusIncome(root=str(root)).examples("train", 0)
    assert len(train) == 6 and train.rows is None
    targets = {name: target.tolist() for name, target in train.targets.items()}
    assert targets == {
        "income": [0, 1, 0, 0, 0, 0], "never_married": [1, 0, 0, 0, 0, 0], "education": [0, 1, 0, 0, 0, 1],
    }  # fmt: skip
    assert column(train, "age") == [73, 0, 0, 0, 0, 0] and column(train, "capital gains")[1] == 99999
    assert column(train, "hispanic origin")[:2] == [code("hispanic origin", "NA"), 2]  # a category, not a missing one
    country = column(train, "country of birth self")
    assert country[1:4] == [2, 1, 0]  # the first level, missing, not seen in training
    assert column(train, "migration code-change in msa")[2] == column(train, "state of previous residence")[2] == 1
    blank_at_the_end = code("major occupation code", "Handlers equip cleaners etc")
    assert column(train, "major occupation code")[3] == blank_at_the_end
    assert column(train, "detailed industry recode")[4] == 53 and column(train, "year")[:2] == [3, 2]


def test_the_test_file_is_halved_by_the_seed_of_the_dataset(root: Path) -> None:
    dataset = CensusIncome(root=str(root))
    val, test = (column(dataset.examples(split, 0), "wage per hour") for split in ("val", "test"))
    assert len(val) == len(test) == 6 and sorted(val + test) == list(range(12)) and sorted(val) == val != list(range(6))
    again = CensusIncome(root=str(root))
    assert column(again.examples("test", 7), "wage per hour") == test  # whatever the run's seed
    other = CensusIncome(root=str(root), seed=1).examples("test", 0)
    assert column(other, "wage per hour") != test
    assert dataset.examples("val", 0).inputs is dataset.examples("test", 0).inputs


def test_instance_weights(root: Path) -> None:
    assert CensusIncome(root=str(root)).examples("test", 0).sample_weights() is None
    dataset = CensusIncome(root=str(root), weighted=True)
    assert dataset.examples("train", 0).sample_weights().tolist() == 6 * [pytest.approx(1700.09)]  # type: ignore[union-attr]
    assert len(dataset.examples("test", 0).sample_weights()) == 6  # type: ignore[arg-type]


def test_compressed_files_are_read(root: Path) -> None:
    expected = CensusIncome(root=str(root)).examples("train", 0).inputs
    for file in FILES:
        path = root / "census_income/raw" / file
        path.with_name(f"{file}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert torch.equal(CensusIncome(root=str(root)).examples("train", 0).inputs, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + text, r"census-income.data: expected 6 rows, got 12\. Run `mtl data fetch census_"),
        (
            lambda text: text.replace(", 50000+.", ""),
            r"census-income.data:2: 41 values, expected 42\. Run",
        ),
        (
            lambda text: text.replace("50000+.", "yes"),
            r"census-income.data:2: 'yes' in the last column, expected - 50000\. or 50000\+\.\. Run",
        ),
        (lambda text: text.replace("73", "old"), r"census-income.data:1: 'old' in the numeric column 'age' .* Run"),
        (lambda text: "", "census-income.data: has no rows. Run"),
    ],
)
def test_damaged_files(root: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = root / "census_income/raw/census-income.data"
    path.write_text(change(path.read_text()))
    with pytest.raises(MtlError, match=message):
        CensusIncome(root=str(root)).examples("train", 0)


def test_missing_files_without_download(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"census_income: no census-income.data, .* Run `mtl data fetch census_income"
    ):
        CensusIncome(root=str(tmp_path), download=False).examples("train", 0)


REAL = {file: CensusIncome.collection.find(data_root(None), file) for file in ROWS}  # type: ignore[union-attr]


@pytest.mark.skipif(None in REAL.values(), reason="the data isn't here: mtl data fetch census_income")
def test_the_real_files_match_the_description() -> None:
    """Compare the constant description with the files and with their documentation."""
    path = REAL["census-income.data"]
    assert path is not None
    table = read_table(path, Dialect(",", ["?"]), NAMES)
    rows = np.arange(len(table))
    for described in input_columns():
        fitted = fit_column(
            [TrainingTable(table, rows, categorical=[described.name] if described.levels else ())], described.name
        )
        assert fitted.levels == described.levels
        numbers = [(c.mean, c.std, c.log_mean, c.log_std) for c in (described, fitted)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-7)
    dataset = CensusIncome()
    val, test = dataset.examples("val", 0), dataset.examples("test", 0)
    assert len(table) == 199_523 and len(val) == len(test) == 49_881
    income = test.targets["income"]
    assert len(income) == 99_762 and income.mean().item() == pytest.approx(0.0620, abs=5e-5)
    pairs = [(test.targets[name], test.targets["never_married"]) for name in ("income", "education")]
    correlations = [abs(torch.corrcoef(torch.stack(pair))[0, 1].item()) for pair in pairs]
    assert correlations == pytest.approx([0.1768, 0.2373], abs=0.002)  # the paper's, of 10,000 rows
