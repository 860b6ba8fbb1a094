"""Types, encoding and standardization of a table's columns."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.column_encoding import TrainingTable, encode_columns, fit_column, signed_log1p
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_options import MISSING_VALUES
from mtlcli.data.formats.table_reader import read_table
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.target_columns import encode_target, fit_target
from mtlcli.errors import ConfigError
from mtlcli.models.inputs import make_column_encoder
from mtlcli.models.table_encoder import TableEncoder
from mtlcli.specs import IGNORE_INDEX, Column, TargetSpec

EPS = float(np.finfo(np.float32).eps)


def one_column(tmp_path: Path, values: list[str], delimiter: str = ";") -> Table:
    path = tmp_path / "t.csv"
    path.write_text("v;row\n" + "".join(f"{value};{at}\n" for at, value in enumerate(values)), encoding="utf-8")
    return read_table(path, Dialect(delimiter, MISSING_VALUES))


def fitted(table: Table, **options: Any) -> Column:
    categorical = ["v"] if options.pop("categorical", False) else []
    return fit_column(
        [TrainingTable(table, np.arange(len(table)), options.pop("notation", Notation()), categorical)], "v", **options
    )


def target(table: Table, type_: Any = None, **options: Any) -> TargetSpec:
    return fit_target(table, "v", np.arange(len(table)), type_, **options)


TYPES = {
    "binary": (["0", "1", "1.0", "", "0"], "binary"),
    "real": (["0", "1", "2", "n/a"], "real"),
    "classes": (["a", "b", "a", "None"], "classes"),
}


@pytest.mark.parametrize(("values", "type_"), TYPES.values(), ids=TYPES)
def test_the_type_of_a_target_is_inferred_from_all_cells(tmp_path: Path, values: list[str], type_: str) -> None:
    assert target(one_column(tmp_path, values)).type == type_


def test_truth_values_in_several_spellings_are_binary(tmp_path: Path) -> None:
    table = one_column(tmp_path, ["TRUE", "False", "true", "FALSE"])
    assert target(table) == TargetSpec("binary")
    assert encode_target(table, "v", target(table)).tolist() == [1, 0, 1, 0]
    mixed = one_column(tmp_path, ["True", "False", "1", "0.0"])
    assert target(mixed) == TargetSpec("binary") and encode_target(mixed, "v", target(mixed)).tolist() == [1, 0, 1, 0]
    assert target(one_column(tmp_path, ["True", "False", "True"])).classes == ("False", "True")


def test_columns_in_two_notations_are_errors(tmp_path: Path) -> None:
    table = one_column(tmp_path, ["1.5", "2.25", "-3.0"])
    with pytest.raises(ConfigError, match=r"t.csv:2: '1.5' in column 'v' looks like .*`decimal` is another mark"):
        fitted(table, notation=Notation(decimal=","))


def test_a_new_file_in_another_notation_is_an_error(tmp_path: Path) -> None:
    for name, mark, decimal in (("old", ",", "."), ("new", ";", ",")):
        lines = [f"{row % 7}{decimal}5{mark}{row}" for row in range(30)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"x{mark}y", *lines]))
    spec = TableDataset(path=str(tmp_path / "old.csv"), targets=["y"]).describe()
    with warnings.catch_warnings(action="error"), pytest.raises(ConfigError, match=r"new.csv:2: .* a decimal comma"):
        TableDataset(path=str(tmp_path / "new.csv"), targets=["y"], delimiter=";").restore(spec)


def test_an_empty_cell_is_always_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("v,w\n#DIV/0!,a\n,\n1,b\n")
    table = read_table(path, Dialect(",", ["#DIV/0!"]))
    assert [cells.values for cells in table.columns.values()] == [(None, "1"), ("a", None, "b")]


def test_classes_of_single_rows_and_dotted_thousands_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    amounts = ["950", "1.250", "2.134", "3.999", "12.001", "100.000"]
    path.write_text("x,price,name\n" + "".join(f"{at % 3},{amounts[at % 6]},p{at}\n" for at in range(30)))
    options: dict[str, Any] = {"path": str(path), "test": 0.0, "val": 0.0, "exclude": ["name"]}
    (note,) = TableDataset(targets=["price"], **options).notes()
    assert "('1.250' as 1.25)" in note and '`thousands: "."` and `decimal: ","`' in note
    assert not TableDataset(targets=["price"], thousands=".", decimal=",", **options).notes()
    (_, note) = sorted(TableDataset(targets=["name"], **{**options, "exclude": []}).notes())
    assert "target 'name' has 30 classes in 30 rows" in note


REFUSED = {
    "infinity": (["1", "inf", "2"], r"t.csv:3: 'inf' in column 'v' is not a finite number, but 2 values are"),
    "one word": (["7", "8", "9", "ok", "10"], r"t.csv:5: 'ok' in column 'v' is not a finite number, but 4 values are"),
    "two words": (["7", "x", "9", "y", "10"], r"t.csv:3: 'x' .* 3 values are.* \(and 1 more such lines\)$"),
    "one number": (["a", "b", "7", "c"], r"t.csv:4: '7' in column 'v' is a number, but 3 of its values are not"),
    "one unit": (["7", "8 kg", "9", "1"], r"t.csv:3: '8 kg' .*; it looks like a number with the unit 'kg'"),
    "one comma": (["7.5", "8,5", "9", "1"], r"t.csv:3: '8,5' .*; it looks like a number with a decimal comma"),
    "all commas": (
        ["7,5", "8,5", "9,0"],
        r"t.csv:2: '7,5' in column 'v' looks like a number with a decimal comma: set",
    ),
    "dates": (
        ["2020-01-01", "2020-01-02"],
        r"t.csv:2: '2020-01-01' .* looks like a date: list the column under `dates`",
    ),
    "hexadecimal": (["1", "0x1F", "2"], r"t.csv:3: '0x1F' in column 'v' is not a finite number"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_features_and_targets_follow_the_same_rules(tmp_path: Path, values: list[str], message: str) -> None:
    table = one_column(tmp_path, values)
    for fit, remedy in ((fitted, "under `categorical`"), (target, r"`targets: \{v: classes\}`")):
        with pytest.raises(ConfigError, match=message) as caught:
            fit(table)
        assert remedy.replace("\\", "") in str(caught.value)
    declared = fitted(table, categorical=True), target(table, "classes")
    assert declared[0].levels == declared[1].classes and len(declared[0].levels or ()) == len(set(values))


def test_the_first_cell_that_is_not_a_number_is_reported(tmp_path: Path) -> None:
    table = one_column(tmp_path, ["1", "2", "3 kg", "x"])
    with pytest.raises(
        ConfigError, match=r"t.csv:4: '3 kg' in the real target 'v' is not a number; it looks like .*kg"
    ):
        target(table, "real")


@pytest.mark.parametrize(
    "word", ["n/a", "N/A", "NA", "null", "NULL", "None", "NaN", "nan", "-", "#N/A", "?", "<NA>", ""]
)
def test_the_default_marks_are_missing_values(tmp_path: Path, word: str) -> None:
    table = one_column(tmp_path, ["1", "0", word, "1"])
    assert target(table) == TargetSpec("binary", missing=True)
    assert target(table, "classes").classes == ("0", "1")
    assert encode_target(table, "v", TargetSpec("classes", 2, ("0", "1"))).tolist() == [1, 0, IGNORE_INDEX, 1]
    assert fitted(table).mean == pytest.approx(2 / 3)


def test_all_spellings_of_a_number_are_one_category(tmp_path: Path) -> None:
    table = one_column(tmp_path, ["1", "1.0", "01", " 2", "2.00", "", "10", "1e1"])
    spec = target(table, "classes")
    assert spec.classes == ("1", "2", "10")
    assert encode_target(table, "v", spec).tolist() == [0, 0, 0, 1, 1, IGNORE_INDEX, 2, 2]
    column = fitted(table, categorical=True)
    assert column.levels == spec.classes
    assert encode_columns(table, [column, column])[:, 0].tolist() == [2, 2, 2, 3, 3, 1, 4, 4]
    new = one_column(tmp_path, ["1.00", "3", "x", "2"])
    assert encode_columns(new, [column])[:, 0].tolist() == [2, 0, 0, 3]


def test_the_levels_of_an_older_checkpoint_keep_their_codes(tmp_path: Path) -> None:
    """In older checkpoints, `1` and `1.0` are separate levels, spelled as in the file."""
    table = one_column(tmp_path, ["1", "1.0", "2.0", "2", "01"])
    assert encode_columns(table, [Column("v", ("1", "1.0", "2.0"))])[:, 0].tolist() == [2, 3, 4, 4, 2]


def test_spellings_differ_if_a_category_is_not_a_number(tmp_path: Path) -> None:
    assert fitted(one_column(tmp_path, ["1", "1.0", "1a"]), categorical=True).levels == ("1", "1.0", "1a")


def test_classes_that_look_alike_are_noted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "1,Yes\n2,yes\n3,no\n" * 5)
    dataset = TableDataset(path=str(tmp_path / "t.csv"), targets=["y"], test=0.0)
    dataset.describe()
    assert dataset.notes()[0].startswith("target 'y': 'Yes' and 'yes' count as different")


def test_categories_that_look_alike_are_noted(tmp_path: Path) -> None:
    values = ["Rome", "rome", "Bern", "caf\u00e9", "cafe\u0301"] * 5
    (tmp_path / "t.csv").write_text("city,y\n" + "".join(f"{v},{at % 2}\n" for at, v in enumerate(values)), "utf-8")
    dataset = TableDataset(path=str(tmp_path / "t.csv"), targets=["y"], test=0.0)
    dataset.describe()
    (note,) = dataset.notes()
    assert "'Rome' and 'rome'" in note and "café" in note and "Bern" not in note and "'city'" in note


# columns far from 0 or nearly constant, with their offsets
OFFSETS: dict[str, tuple[list[float], float]] = {
    "unix seconds": ([1_700_000_000.0 + x for x in range(0, 200, 7)], 1_700_000_000.0),
    "unix milliseconds": ([1_700_000_000_000.0 + 1000 * x for x in range(0, 300, 7)], 1_700_000_000_000.0),
    "UTM northing": ([5_400_000.0 + 0.13 * x for x in range(40)], 5_400_000.0),
    "longitude": ([-122.4194 + 1e-5 * x for x in range(40)], -122.4194),
    "negative": ([-9e9 + x for x in range(40)], -9e9),
    "identifiers": ([2.0**52 + x for x in range(40)], 2.0**52),
}


@pytest.mark.parametrize(("numbers", "origin"), OFFSETS.values(), ids=OFFSETS)
def test_numbers_far_from_0_keep_their_digits(tmp_path: Path, numbers: list[float], origin: float) -> None:
    table = one_column(tmp_path, [repr(x) for x in numbers])
    column = fitted(table)
    small = np.array(numbers) - origin
    expected = (small - small.mean()) / small.std()
    x = encode_columns(table, [column])
    assert x.dtype == torch.float32
    # The shifted numbers are within a few standard deviations, so a few roundings of float32 are all that is lost.
    np.testing.assert_allclose(make_column_encoder([column])(x)[:, 0].numpy(), expected, atol=16 * EPS)
    logs = signed_log1p(small, origin)
    np.testing.assert_allclose(logs, small / (np.sign(origin) * origin + 1), rtol=1e-3)  # log(1 + x) ≈ x
    encoded = TableEncoder([column], "auto", "log1p")(x)[:, 0].numpy()
    np.testing.assert_allclose(encoded, (logs - logs.mean()) / logs.std(), atol=32 * EPS)
    spec = target(table)
    labels = encode_target(table, "v", spec)
    assert labels.tolist() == numbers and (spec.mean, spec.std) == pytest.approx((np.mean(numbers), small.std()))


@pytest.mark.parametrize("origin", [0.0, 3.0, -3.0, 1e6, -1e12])
def test_logarithms_of_shifted_numbers(origin: float) -> None:
    shifted = np.array([-5e12, -4.0, -2.5, 0.0, 1e-3, 7.0, 5e12])
    x = shifted + origin
    expected = np.sign(x) * np.log1p(np.abs(x)) - np.sign(origin) * np.log1p(abs(origin))
    np.testing.assert_allclose(
        signed_log1p(shifted, origin), expected, atol=1e-13 * max(1, abs(origin)) / (1 + abs(origin)) + 1e-14
    )
    columns = [Column("v", log_std=1.0, offset=origin)]
    encoded = TableEncoder(columns, "auto", "log1p")(torch.from_numpy(shifted).float()[:, None])[:, 0]
    np.testing.assert_allclose(
        encoded.numpy(), signed_log1p(np.float64(np.float32(shifted)), origin), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "values",
    [["0.1"] * 7, ["0.3", "0.1", "0.30000000000000004"][::2] * 5, ["1700000000.1"] * 9, ["-1e30"] * 5, ["0"] * 3],
)
def test_a_constant_column_has_the_standard_deviation_1(tmp_path: Path, values: list[str]) -> None:
    table = one_column(tmp_path, values)
    column = fitted(table)
    assert (column.std, column.log_std, column.offset) == (1.0, 1.0, 0.0)
    x = encode_columns(table, [column])
    size = abs(float(values[0]))
    assert make_column_encoder([column])(x).abs().max().item() <= size * EPS
    assert TableEncoder([column], "auto", "log1p")(x).abs().max().item() <= 4 * EPS * (1 + math.log1p(size))


def test_a_column_with_a_single_outlier_is_not_constant(tmp_path: Path) -> None:
    column = fitted(one_column(tmp_path, ["1"] * 50 + ["2"]))
    assert column.std == pytest.approx(np.std([1] * 50 + [2])) and column.offset == 0


def test_ordinary_numbers_have_no_offset(tmp_path: Path) -> None:
    for values in (["1", "2", "3.5"], ["-40", "100"], ["1000", "1010", "990"], ["1e30", "1", "2"]):
        assert fitted(one_column(tmp_path, values)).offset == 0


def test_a_column_of_two_tables_is_fitted_on_both(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, second = one_column(tmp_path / "a", ["1", "2", "3"]), one_column(tmp_path / "b", ["10", "", "20"])
    sources = [TrainingTable(first, np.array([0, 1])), TrainingTable(second, np.array([0, 1, 2]))]
    assert fit_column(sources, "v").mean == pytest.approx(np.mean([1, 2, 10, 20]))
    declared = [sources[0], TrainingTable(second, np.array([0, 1, 2]), categorical=["v"])]
    assert fit_column(declared, "v").levels == ("1", "2", "10", "20")
    third = one_column(tmp_path / "b", ["x", "y"])
    with pytest.raises(ConfigError, match=r"b/t.csv: column 'v' has no numbers, but in .*a/t.csv it has"):
        fit_column([sources[0], TrainingTable(third, np.array([0, 1]))], "v")


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"decimal": ","}, ["4,5", "9,25", "-1,0"]),
        ({"decimal": ",", "thousands": "."}, ["4,5", "9,25", "-1.000,0"]),
        ({"thousands": ","}, ["4.5", "9.25", "-1,000"]),
    ],
)
def test_options_read_other_notations(tmp_path: Path, options: dict[str, Any], values: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x;y\n" + "".join(f"{v};{v}\n" for v in values))
    dataset = TableDataset(path=str(path), targets=["y"], delimiter=";", test=0.0, val=0.0, **options)
    spec, examples = dataset.describe(), dataset.examples("train", 0)
    assert spec.targets["y"].type == "real" and isinstance(examples.inputs, torch.Tensor)
    assert examples.targets["y"].tolist() == examples.inputs[:, 0].tolist()
    assert examples.targets["y"][:2].tolist() == [4.5, 9.25]


def test_dates_are_numbers_of_days(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("day,at,y\n2023-07-14,14.07.2023,0\n2023-07-16,16.07.2023,1\n,,1\n")
    with pytest.raises(ConfigError, match=r"t.csv:2: '2023-07-14' in column 'day' looks like a date"):
        TableDataset(path=str(path), targets=["y"], test=0.0).describe()
    dates = {"day": "%Y-%m-%d", "at": "%d.%m.%Y"}
    dataset = TableDataset(path=str(path), targets=["y"], test=0.0, val=0.0, dates=dates)
    columns, inputs = dataset.describe().columns, dataset.examples("train", 0).inputs
    assert isinstance(inputs, torch.Tensor) and torch.equal(inputs[:, 0], inputs[:, 1])
    assert [c.mean + c.offset for c in columns] == [19553.0, 19553.0]  # 2023-07-15
    assert (inputs[:, 0] + columns[0].offset).tolist() == [19552.0, 19554.0, 19553.0]
    path.write_text("day,y\n2023-07-14,0\nsoon,1\n2023-07-15,1\n")
    with pytest.raises(ConfigError, match=r"t.csv:3: 'soon' in the column 'day' is not a date in ISO 8601"):
        TableDataset(path=str(path), targets=["y"], test=0.0, dates=["day"]).describe()
    with pytest.raises(
        ConfigError, match=r"t.csv:2: '2023-07-14' in the column 'day' is not a date of the format '%d.%m.%Y'"
    ):
        TableDataset(path=str(path), targets=["y"], test=0.0, dates={"day": "%d.%m.%Y"}).describe()
    with pytest.raises(ConfigError, match=r"t.csv:3: 'soon' in the target 'day' is not a date in ISO 8601"):
        TableDataset(path=str(path), targets=["day"], test=0.0, dates=["day"]).describe()


def test_a_multilabel_target_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x;u;v\n1;true;\n2;0;1\n3;1;0\n")
    options: dict[str, Any] = {"delimiter": ";", "decimal": ",", "test": 0.0, "val": 0.0}
    dataset = TableDataset(path=str(path), targets={"tags": ["u", "v"]}, **options)
    assert dataset.describe().targets["tags"] == TargetSpec("multilabel", 2, ("u", "v"), True)
    labels = dataset.examples("train", 0).targets["tags"]
    assert labels.nan_to_num(-1).tolist() == [[1, -1], [0, 1], [1, 0]]
    path.write_text("x;u;v\n1;1;0\n2;0;2\n")
    with pytest.raises(
        ConfigError, match=r"t.csv:3: '2' in the column 'v' of the multilabel target 'tags' is not 0 or 1"
    ):
        TableDataset(path=str(path), targets={"tags": ["u", "v"]}, **options).describe()
    with pytest.raises(ConfigError, match="no column 'w', which `targets` names"):
        TableDataset(path=str(path), targets={"tags": ["u", "w"]}, **options).describe()
    with pytest.raises(ValueError, match="'tags' names the column 'u' more than once"):
        TableDataset(path=str(path), targets={"tags": ["u", "u"]}, **options)


def test_equal_decimal_and_thousands_marks() -> None:
    with pytest.raises(ValueError, match="`decimal` and `thousands` are both ','"):
        TableDataset(path="t.csv", targets=["y"], decimal=",", thousands=",")


def test_the_notation_of_a_table(tmp_path: Path) -> None:
    table = one_column(tmp_path, ["1,5", "2", "1,50"])
    column = fitted(table, categorical=True, notation=Notation(decimal=","))
    assert column.levels == ("1.5", "2")
    assert encode_columns(table, [column], Notation(decimal=","))[:, 0].tolist() == [2, 3, 2]
