from __future__ import annotations

import errno
import gzip
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.data.base import Examples
from mtlcli.data.datasets.digits import Digits
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats import compressed, header, text_lines
from mtlcli.data.formats.column_encoding import sort_values
from mtlcli.data.formats.delimited_text import ROWS as CHUNK
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, Column, DatasetSpec

TABLE = """\
age,town,income,married,split
20,Ulm,1.5,1,train
40,Bonn,?,0,train
?,Ulm,2.5,,train
30,Köln,3.5,1,val
50,Bonn,4.5,0,test
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def people(path: Path, **options: Any) -> TableDataset:
    return TableDataset(**{"path": str(path), "targets": ["income", "married"], "split_column": "split", **options})


def values(examples: Examples) -> list[list[float]]:
    assert isinstance(examples.inputs, torch.Tensor) and examples.rows is not None
    return examples.inputs[examples.rows].tolist()  # type: ignore[no-any-return]


def target(examples: Examples, name: str) -> list[float]:
    return examples.targets[name][examples.rows].tolist()  # type: ignore[no-any-return]


def test_features_targets_and_splits(path: Path) -> None:
    dataset = people(path)
    spec = dataset.describe()
    assert spec.input_shape == (2,) and spec.splits == ("train", "val", "test") and spec.main_target is None
    age, town = spec.columns
    assert (age.name, age.levels, age.mean, age.std) == ("age", None, 30.0, 10.0)
    logs = np.log([21.0, 41.0])
    assert (age.log_mean, age.log_std) == pytest.approx((logs.mean(), logs.std()))
    assert (town.name, town.levels, town.mean, town.std) == ("town", ("Bonn", "Ulm"), 0.0, 1.0)
    assert {name: (t.type, t.missing) for name, t in spec.targets.items()} == {
        "income": ("real", True),
        "married": ("binary", True),
    }
    train, val = dataset.examples("train", 0), dataset.examples("val", 0)
    assert values(train) == [[20, 3], [40, 2], [30, 3]]  # Bonn is 2, Ulm 3; the missing age is the mean
    assert values(val) == [[30, 0]]  # Köln is not among the training rows
    assert target(train, "married")[:2] == [1, 0] and math.isnan(target(train, "married")[2])
    assert math.isnan(target(train, "income")[1]) and target(val, "income") == [3.5]
    assert (spec.targets["income"].mean, spec.targets["income"].std) == (2.0, 0.5)
    assert DatasetSpec.from_dict(spec.to_dict()) == spec


def test_classes(path: Path) -> None:
    dataset = people(path, targets={"town": "classes", "married": "classes"}, features=["age"])
    path.write_text(TABLE.replace("Köln", "Ulm").replace("40,Bonn", "40,Bonn"), encoding="utf-8")
    spec = dataset.describe()
    assert spec.targets["town"].classes == ("Bonn", "Ulm") and spec.targets["married"].classes == ("0", "1")
    train = dataset.examples("train", 0)
    assert target(train, "town") == [1, 0, 1]
    assert target(train, "married") == [1, 0, IGNORE_INDEX]
    assert train.targets["town"].dtype == torch.int64


def test_numbers_as_categories(path: Path) -> None:
    dataset = people(path, features=["age"], categorical=["age"])
    assert dataset.describe().columns == (Column("age", ("20", "40")),)
    assert values(dataset.examples("train", 0)) == [[2], [3], [1]]  # a missing category is 1


def test_a_constant_feature_has_the_standard_deviation_1(path: Path) -> None:
    path.write_text(TABLE.replace("40", "20"), encoding="utf-8")
    (age,) = people(path, features=["age"]).describe().columns
    assert (age.std, age.log_std) == (1.0, 1.0)


def test_numbers_of_any_size_are_standardized_in_float32(path: Path) -> None:
    path.write_text("x,tiny,y\n1.7e38,1e-320,0\n-1.7e38,3e-320,1\n1.7e38,2e-320,0\n")
    dataset = TableDataset(path=str(path), targets=["y"], test=0.0, val=0.0)
    inputs = dataset.examples("train", 0).inputs
    means, stds = torch.tensor([[column.mean, column.std] for column in dataset.describe().columns]).T
    assert isinstance(inputs, torch.Tensor) and torch.isfinite((inputs - means) / stds).all()
    path.write_text("x,y\n3e38,0\n1,1\n")
    with pytest.raises(ConfigError, match=r"people.csv:2: '3e38' in column 'x' is not a finite number"):
        TableDataset(path=str(path), targets=["y"], test=0.0).describe()


def test_logarithms_of_either_sign(path: Path) -> None:
    path.write_text("x,y\n-9,0\n0,1\n99,0\n,1\n")
    (x,) = TableDataset(path=str(path), targets=["y"], test=0.0).describe().columns
    logs = np.array([-math.log(10), 0.0, math.log(100)])
    assert (x.mean, x.std) == pytest.approx((30.0, np.std([-9, 0, 99])))
    assert (x.log_mean, x.log_std) == pytest.approx((logs.mean(), logs.std()))


@settings(max_examples=20, deadline=None)
@given(size=st.integers(30, 60), share=st.floats(0.0, 0.5), seed=st.integers(0, 5), run_seed=st.integers(0, 5))
def test_split_by_seed(
    tmp_path_factory: pytest.TempPathFactory, size: int, share: float, seed: int, run_seed: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text("x;y\n" + "\n".join(f"{i};{i % 7}" for i in range(size)))
    dataset = TableDataset(path=str(path), targets={"y": "real"}, test=share, seed=seed, val=0.1, delimiter=";")
    splits = {
        split: [row[0] for row in values(dataset.examples(split, run_seed))] for split in dataset.describe().splits
    }
    assert sorted(x for rows in splits.values() for x in rows) == list(range(size))
    assert bool(splits.get("test")) == (share > 0)
    again = TableDataset(path=str(path), targets={"y": "real"}, test=share, seed=seed, val=0.3, delimiter=";")
    if "test" in splits:
        assert [row[0] for row in values(again.examples("test", run_seed + 1))] == splits["test"]


def test_the_encoding_of_a_checkpoint_is_used_on_another_file(path: Path, tmp_path: Path) -> None:
    stored = DatasetSpec.from_dict(people(path).describe().to_dict())
    other = tmp_path / "other.csv"
    other.write_text("town,married,income,age\nBonn,0,1,60\nRom,1,2,\n", encoding="utf-8")
    dataset = people(other, split_column=None, test=1.0)
    spec = dataset.restore(stored)
    examples = dataset.examples("test", 0)
    assert sorted(values(examples)) == [[30, 0], [60, 2]]  # Rom was not seen; the missing age is the old mean
    assert spec == dataset.describe() and spec.splits == ("test",) and spec.columns == stored.columns
    assert {name: target.missing for name, target in spec.targets.items()} == {"income": False, "married": False}
    assert spec.targets["income"].mean == stored.targets["income"].mean == 2.0


def test_labels_that_are_missing_only_in_the_new_file(path: Path, tmp_path: Path) -> None:
    path.write_text("age,married\n1,0\n2,1\n", encoding="utf-8")
    stored = people(path, targets=["married"], split_column=None, test=0.0).describe()
    other = tmp_path / "other.csv"
    other.write_text("age,married\n1,0\n2,?\n", encoding="utf-8")
    spec = people(other, targets=["married"], split_column=None, test=1.0).restore(stored)
    assert not stored.targets["married"].missing and spec.targets["married"].missing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["income"]}, "the data has no target 'married', on which the checkpoint was trained"),
        ({"targets": {"income": "real", "married": "real"}}, "target 'married' of type binary, but .* of type real"),
        ({"features": ["age"]}, "trained on the features age, town, but `features` here are age"),
        ({"targets": ["income", "married", "x"]}, "no column 'x', which `targets` names"),
    ],
)
def test_a_table_that_does_not_fit_the_checkpoint(path: Path, options: dict[str, Any], message: str) -> None:
    stored = people(path).describe()
    with pytest.raises(ConfigError, match=message):
        people(path, **options).restore(stored)


def test_a_table_for_a_checkpoint_of_images(path: Path) -> None:
    with pytest.raises(ConfigError, match="trained on inputs 1×8×8 of another dataset, but this is a table"):
        people(path).restore(Digits().describe())


def test_a_class_unknown_to_the_checkpoint(path: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"targets": {"town": "classes"}, "features": ["age"], "split_column": None}
    path.write_text("age,town\n1,Ulm\n2,Bonn\n3,Ulm\n4,Bonn\n")
    stored = people(path, **{**options, "test": 0.0}).describe()
    other = tmp_path / "other.csv"
    other.write_text("age,town\n1,Ulm\n2,Rom\n", encoding="utf-8")
    dataset = people(other, **{**options, "test": 1.0})
    with pytest.raises(
        ConfigError, match=r"other.csv:3: target 'town' has the class 'Rom', which is not .*: Bonn, Ulm"
    ):
        dataset.restore(stored)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "ragged": (TABLE + "1,2\n1,2,3,4,5,6\n", {}, r"people.csv:7: 2 values, but the header names 5\n.*:8: 6 values"),
    "empty": ("", {}, "is empty, or has no header"),
    "header only": ("age,town,income,married,split\n", {}, "has a header and no rows"),
    "column twice": (TABLE.replace("town", "age", 1), {}, r"people.csv:1: the header names 'age' more than once"),
    "unknown target": (TABLE, {"targets": ["incom"]}, "no column 'incom', which `targets` names. Did you mean 'income"),
    "unknown feature": (TABLE, {"features": ["agee"]}, "no column 'agee', which `features` names. Did you mean 'age'"),
    "unknown split column": (TABLE, {"split_column": "splits"}, "no column 'splits', which `split_column` names"),
    "unknown split": (TABLE.replace("val", "dev"), {}, "people.csv:5: 'dev' in the split column 'split' is not one of"),
    "no training rows": (TABLE.replace("train", "test"), {}, "the table has no training rows"),
    "mixed feature": (
        TABLE.replace("40,", "forty,"),
        {},
        r"people.csv:3: 'forty' in column 'age' is not a finite number",
    ),
    "infinite feature": (
        TABLE.replace("40,", "inf,"),
        {},
        r"people.csv:3: 'inf' in column 'age' is not a finite number",
    ),
    "real that is none": (
        TABLE,
        {"targets": {"town": "real"}, "features": ["age"]},
        r"people.csv:2: 'Ulm' in the real target 'town' is not a number; for categories, set",
    ),
    "binary that is none": (
        TABLE,
        {"targets": {"age": "binary"}, "features": ["income"]},
        r"people.csv:2: '20' in the binary target 'age' is not 0 or 1 \(true or false, yes or no\)",
    ),
    "one class": (TABLE.replace("Bonn", "Ulm"), {"targets": ["town"]}, "has only the class 'Ulm'"),
    "unseen class": (TABLE, {"targets": ["town"]}, "people.csv:5: target 'town' has the class 'Köln'"),
    "target as feature": (TABLE, {"features": ["income"]}, "'income' can't be a feature and a target"),
    "feature twice": (TABLE, {"features": ["age", "age"]}, "names a column more than once"),
    "no feature": ("y,split\n1,train\n0,train\n", {"targets": ["y"]}, "no feature column is left"),
    "no value": (TABLE.replace("20", "").replace("40", ""), {}, "column 'age' has no value in the training rows"),
    "no label": (TABLE.replace("1.5", "").replace("2.5", ""), {}, "target 'income' has no label in the training rows"),
    "identifier": (
        "id,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(1500)),
        {"targets": ["y"], "split_column": None, "test": 0.0},
        "has 1500 categories, more than 1000: it looks like an identifier",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "options", "message"), WRONG.values(), ids=WRONG)
def test_errors_are_reported_with_their_place(path: Path, content: str, options: dict[str, Any], message: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        people(path, **options).describe()


HOSTILE: dict[str, tuple[str, str]] = {
    "all ragged": (TABLE + "1,2\n" * 99, r":7: 2 values(.*\n){5}.*:12: … and more such lines, starting here$"),
    "no header": (
        TABLE.split("\n", 1)[1],
        r"no column 'split', .* in the file's first line are: 20, Ulm, 1.5, 1, train$",
    ),
    "a million columns": ("x," * 10**6 + "\n", r":1: 1000001 columns, but a table can have at most 50000"),
    "NUL": (TABLE.replace("30", "3\0"), r":5: is not text: it has the character NUL at character 2"),
    "NUL in the header": ("a\0" + TABLE, r":1: is not text: it has the character NUL at character 2"),
    "escape code in the header": (
        "\x1b[2J" + TABLE,
        r":1: the name of column 1, '\\x1b\[2Jage', contains the character U\+001B, which can't be printed$",
    ),
    "long name": (
        "x" * 300 + TABLE,
        r":1: the name of column 1, 'x{60}'…, has 303 characters; the maximum is 256$",
    ),
    "escape code in a category": (
        TABLE.replace("Bonn", "\x1b[2J"),
        r":3: '\\x1b\[2J' in column 'town' contains the character U\+001B",
    ),
    "line break in a category": (
        TABLE.replace("Bonn", '"Bo\nnn"'),
        r":4: 'Bo\\nnn' in column 'town' contains the character U\+000A",
    ),
    "long category": (TABLE.replace("Bonn", "B" * 300), r":3: 'B{60}'… in column 'town' has 300 characters"),
    "too large a number": (TABLE.replace("40,", "1e400,"), r":3: '1e400' in column 'age' is not a finite number"),
    "endless number": (TABLE.replace("40,", "9" * 10**5 + ","), r":3: '9{60}'… in column 'age' is not a finite number"),
    "underscore in a number": (TABLE.replace("40,", "4_0,"), r":3: '4_0' in column 'age' is not a finite number"),
    "not a number": (TABLE.replace("40,", "+NaN,"), r":3: '\+NaN' in column 'age' is not a finite number"),
    "long value": (
        TABLE + "x" * 140_000,
        r":7: field larger than field limit \(131072\); is a quote opened in this row",
    ),
    "endless row": (TABLE + "x," * 500, r":7: the row has more than 900 characters"),
    "endless row of many lines": (TABLE + '"\n",' * 500, r":\d+: the row has more than 900 characters"),
    "open quote": (
        TABLE + '10,"Ulm,1,1,train\n20,Ulm,1,1,train\n',
        ":7: a quote is opened in this row and never closed",
    ),
    "open quote in the last value": (
        TABLE + '10,Ulm,1,1,"train\n20,Ulm,1,1,train\n',
        ":7: a quote is opened in this row and never closed",
    ),
    "open quote in the header": ('age,"town\n1,Ulm\n', ":1: a quote is opened in this row and never closed"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_malicious_files_are_reported(path: Path, content: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "the row has more" in message:
        monkeypatch.setattr(text_lines, "MAX_ROW_CHARACTERS", 900)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^/.*people.csv.*" + message) as caught:
        people(path).describe()
    assert len(str(caught.value)) < 2000 and str(caught.value).replace("\n", "").isprintable()


BITS = ["1", "0", "2.5", "nan", "x", "é", '"', ",", ",", ",", "\n", "\n", "\r", " ", "\0", "\x1b", "1e400", "\ufeff"]


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.sampled_from(BITS), max_size=60).map("".join) | st.binary(max_size=60), compress=st.booleans())
def test_any_bytes_are_a_table_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, rows: str | bytes, compress: bool
) -> None:
    content = b"a,b,y\n1,2,0\n" + (rows.encode() if isinstance(rows, str) else rows)
    path = tmp_path_factory.getbasetemp() / ("any.csv.gz" if compress else "any.csv")
    path.write_bytes(gzip.compress(content) if compress else content)
    message = str(path)
    try:
        TableDataset(path=str(path), targets=["y"], test=0.0).describe()
    except ConfigError as error:
        message = str(error)
    assert message.startswith(str(path))


@pytest.mark.parametrize("value", ["\x1b[31mred", "two\nlines", "\u202ered", "r" * 257])
def test_class_names_are_printable(path: Path, value: str) -> None:
    path.write_text(TABLE.replace("Bonn", f'"{value}"').replace("Köln", "Ulm"), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"people.csv:\d: '.* in column 'town' (contains the character|has 257 characters)"
    ):
        people(path, targets=["town"]).describe()


def test_all_problems_are_reported_together(path: Path) -> None:
    path.write_text(TABLE.replace("40,", "forty,").replace("1.5", "").replace("2.5", ""), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        people(path).describe()
    assert len(caught.value.problems) == 2


def test_files_that_are_not_tables(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(bytes(range(253, 1, -1)))
    (tmp_path / "latin.csv").write_bytes(TABLE.encode("latin-1"))
    (tmp_path / "utf16.csv").write_bytes(TABLE.encode("utf-16"))
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.csv")
    for name, message in (
        ("binary.csv", r"binary.csv:1: is not UTF-8 text: it has the byte 0xFD at character 1"),
        ("latin.csv", r"latin.csv:5: is not UTF-8 text: it has the byte 0xF6 at character 5"),
        ("utf16.csv", r"utf16.csv: can't be read as a table: it is text in UTF-16: save it as UTF-8"),
        ("none.csv", "none.csv: can't be read as a table: No such file"),
        (".", "can't be read as a table: Is a directory"),
        ("loop.csv", "loop.csv: can't be read as a table: Too many levels of symbolic links"),
        ("endless.csv", "endless.csv: can't be read as a table: is a pipe or a device, not a file"),
        ("pipe.csv", "pipe.csv: can't be read as a table: is a pipe or a device, not a file"),
        ("n" * 300, "has 300 bytes; the maximum is 255"),
        ("a\0b", "the character NUL"),
    ):
        with pytest.raises((ConfigError, ValueError), match=message):
            TableDataset(path=str(tmp_path / name), targets=["y"]).describe()


def test_a_file_without_read_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*anything: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ConfigError, match=r"people.csv: can't be read as a table: Permission denied$"):
        people(path).describe()


def test_a_file_that_expands_extremely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 2**16)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"x,y\n" + b"1,2\n" * 2**18))
    with pytest.raises(ConfigError, match=r"t.csv.gz: can't be read as a table: becomes more than 0 MiB"):
        TableDataset(path=str(tmp_path / "t.csv.gz"), targets=["y"]).describe()


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_all_line_endings_are_read(path: Path, end: str) -> None:
    path.write_bytes(TABLE.replace("\n", end).encode())
    assert values(people(path).examples("train", 0)) == [[20, 3], [40, 2], [30, 3]]
    path.write_bytes((TABLE.replace("\n", end) + "1,2" + end).encode())
    with pytest.raises(ConfigError, match=r"people.csv:7: 2 values"):
        people(path).describe()


def test_the_maximum_number_of_columns_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_COLUMNS", 5)
    assert people(path).describe().input_shape == (2,)
    monkeypatch.setattr(header, "MAX_COLUMNS", 4)
    with pytest.raises(ConfigError, match="5 columns, but a table can have at most 4"):
        people(path).describe()


def test_control_characters_in_cells_that_are_not_names(path: Path) -> None:
    path.write_text(TABLE.replace("Ulm", '"Ulm,\n at the Danube\x1b"'), encoding="utf-8")
    assert people(path, features=["age"]).describe().input_shape == (1,)


def test_byte_order_mark_blank_lines_and_blanks_are_ignored(path: Path) -> None:
    path.write_text("\ufeffx, y\n\n 1 , 0\n 2,1 \n   \n", encoding="utf-8")
    dataset = TableDataset(path=str(path), targets=["y"], test=0.0, val=0.0)
    assert values(dataset.examples("train", 0)) == [[1], [2]]
    assert target(dataset.examples("train", 0), "y") == [0, 1]


def test_more_rows_than_a_chunk_in_a_compressed_file(tmp_path: Path) -> None:
    lines = [f"{row},{'abc'[row % 3]},{row % 2}" + ("" if row != 600 else "\n  ") for row in range(2 * CHUNK + 5)]
    text = "x,t,y\n" + "\n".join(lines)
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    options: dict[str, Any] = {"targets": ["y"], "features": ["x", "t"], "test": 0.0, "val": 0.0}
    tables = [TableDataset(path=str(tmp_path / name), **options) for name in ("t.csv", "t.csv.gz")]
    plain, compressed = (values(dataset.examples("train", 0)) for dataset in tables)
    assert plain == compressed == [[row, 2 + row % 3] for row in range(2 * CHUNK + 5)]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(ConfigError, match=r"t.csv.gz: can't be read as a table: damaged: Compressed file ended"):
        TableDataset(path=str(tmp_path / "t.csv.gz"), targets=["y"]).describe()


def test_line_numbers_after_rows_that_span_lines(tmp_path: Path) -> None:
    lines = ['"1\n",a', "", *(f"{row},b" for row in range(CHUNK)), "x,b"]
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(lines))
    with pytest.raises(
        ConfigError, match=rf"t.csv:{CHUNK + 5}: 'x' in column 'x' is not a finite number, but {CHUNK + 1} "
    ):
        TableDataset(path=str(tmp_path / "t.csv"), targets=["y"], test=0.0).describe()


def test_classes_are_in_the_order_of_numbers() -> None:
    assert sort_values({"10", "9", "-1"}) == ("-1", "9", "10")
    assert sort_values({"10", "9", "b"}) == ("10", "9", "b")


def test_a_larger_table_is_read_correctly(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 3)).round(6)
    lines = [f"{a},{b},{c},{'yes' if a > 0 else 'no'}" for a, b, c in x]
    path = tmp_path / "t.csv"
    path.write_text("a,b,c,y\n" + "\n".join(lines))
    dataset = TableDataset(path=str(path), targets=["y"], test=0.0, val=0.0)
    spec, train = dataset.describe(), dataset.examples("train", 0)
    np.testing.assert_allclose([column.mean for column in spec.columns], x.mean(0), rtol=1e-9)
    np.testing.assert_allclose([column.std for column in spec.columns], x.std(0), rtol=1e-9)
    np.testing.assert_allclose(values(train), x.astype(np.float32))
    assert target(train, "y") == [int(a > 0) for a, _, _ in x]
