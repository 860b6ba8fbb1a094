"""Choice of a table's features, and notes on the other columns."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from mtlcli.data.datasets.table import TableDataset
from mtlcli.errors import ConfigError

ROWS = 40


def table(tmp_path: Path, columns: dict[str, list[Any]], **options: Any) -> TableDataset:
    columns = {**columns, "y": [row % 2 for row in range(len(next(iter(columns.values()))))]}
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    return TableDataset(**{"path": str(tmp_path / "t.csv"), "targets": ["y"], "test": 0.0, "val": 0.0, **options})


def features(dataset: TableDataset) -> list[str]:
    return [column.name for column in dataset.describe().columns]


NOISE = [row * 7 % 11 / 10 for row in range(ROWS)]
SHUFFLED = random.Random(0).sample(range(1000, 9999), ROWS)
LEFT_OUT: dict[str, tuple[str, list[Any], str]] = {
    "pandas' index": ("", list(range(ROWS)), "it has no name"),
    "pandas' index, read again": ("Unnamed: 0", list(range(ROWS)), "it has no name"),
    "an unnamed column of anything": ("", SHUFFLED, "it has no name"),
    "row numbers from 0": ("n", list(range(ROWS)), "it numbers the rows"),
    "row numbers from 1": ("n", list(range(1, ROWS + 1)), "it numbers the rows"),
    "row numbers as decimals": ("n", [f"{row}.0" for row in range(ROWS)], "it numbers the rows"),
    "row numbers in another order": ("n", random.Random(1).sample(range(ROWS), ROWS), "it numbers the rows"),
    "row numbers downwards": ("n", list(range(ROWS, 0, -1)), "it numbers the rows"),
    "pandas' index, read three times": ("Unnamed: 0.1", SHUFFLED, "it has no name"),
    "readr's index": ("...1", SHUFFLED, "it has no name"),
    "R's index of some rows": ("X", sorted(SHUFFLED), "it numbers the rows"),
    "rownames of some rows": ("rownames", sorted(SHUFFLED), "it numbers the rows"),
    "names": ("name", [f"person {row}" for row in range(ROWS)], "it is text that differs in every row"),
    "uuids": ("key", [f"{row * 7919:08x}-ab" for row in range(ROWS)], "it is text that differs"),
    "id": ("id", SHUFFLED, "its name and values are those of an identifier"),
    "customer_id": ("customer_id", SHUFFLED, "those of an identifier"),
    "PassengerId": ("PassengerId", SHUFFLED, "those of an identifier"),
    "ID": ("ID", SHUFFLED, "those of an identifier"),
}


@pytest.mark.parametrize(("name", "values", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_columns_that_number_or_identify_the_rows(tmp_path: Path, name: str, values: list[Any], why: str) -> None:
    columns = {name: values, "noise": NOISE}
    dataset = table(tmp_path, columns)
    assert features(dataset) == ["noise"]
    (note,) = dataset.notes()
    assert repr(name) in note and why in note and "`exclude`" in note
    report = dataset.report()
    assert report is not None and list(report.excluded) == [name]
    excluded = table(tmp_path, columns, exclude=[name])
    assert features(excluded) == ["noise"] and not excluded.notes()
    assert features(table(tmp_path, columns, features=[name, "noise"])) == [name, "noise"]
    assert features(table(tmp_path, columns, categorical=[name])) == [name, "noise"]


KEPT: dict[str, tuple[str, list[Any]]] = {
    "whole numbers": ("age", SHUFFLED),
    "gaps": ("n", [*range(ROWS - 1), ""]),
    "coordinates": ("X", SHUFFLED),
    "rising numbers": ("time", sorted(SHUFFLED)),
    "years": ("year", [1900 + 2 * row for row in range(ROWS)]),
    "fractions": ("x", [row / 10 for row in range(ROWS)]),
    "text with a repetition": ("name", ["a", *(f"n{row}" for row in range(ROWS - 2)), "a"]),
    "a word that ends like id": ("humid", SHUFFLED),
}


@pytest.mark.parametrize(("name", "values"), KEPT.values(), ids=KEPT)
def test_ordinary_columns_are_features(tmp_path: Path, name: str, values: list[Any]) -> None:
    dataset = table(tmp_path, {name: values, "noise": NOISE})
    assert features(dataset) == [name, "noise"] and not dataset.notes()


def test_columns_of_small_tables_and_only_columns_are_kept(tmp_path: Path) -> None:
    assert features(table(tmp_path, {"n": list(range(19)), "x": [0.5, *[1] * 18]})) == ["n", "x"]
    assert features(table(tmp_path, {"n": list(range(ROWS))})) == ["n"]
    assert features(table(tmp_path, {"": list(range(ROWS)), "n": list(range(ROWS))})) == ["n"]
    with pytest.raises(ConfigError, match="no feature column is left"):
        table(tmp_path, {"": list(range(ROWS))}).describe()


def test_a_repeated_number_with_the_name_of_an_id_is_noted(tmp_path: Path) -> None:
    columns = {"store_id": [row % 7 for row in range(ROWS)], "noise": NOISE}
    dataset = table(tmp_path, columns)
    assert features(dataset) == ["store_id", "noise"]
    assert "'store_id' is read as a number, although its name is that of an identifier" in dataset.notes()[0]
    for options in ({"categorical": ["store_id"]}, {"features": ["store_id", "noise"]}):
        declared = table(tmp_path, columns, **options)
        assert features(declared) == ["store_id", "noise"] and not declared.notes()


@pytest.mark.parametrize("form", ["{},5", "{} kg", "\u2212{}", "2023-01-01 00:{:02}"])
def test_numbers_and_dates_in_another_notation_are_errors(tmp_path: Path, form: str) -> None:
    """Even if they differ in every row, they are not taken for text that only identifies the rows."""
    (tmp_path / "t.csv").write_text(
        "v;x;y\n" + "".join(f"{form.format(row)};{row % 3};{row % 2}\n" for row in range(ROWS)), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"t.csv:2: .* in column 'v' looks like a "):
        TableDataset(path=str(tmp_path / "t.csv"), targets=["y"], delimiter=";").describe()


def test_several_columns_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",x,,y,\n" + "".join(f"{row},{row % 3},a,{row % 2},\n" for row in range(ROWS)))
    dataset = TableDataset(path=str(tmp_path / "t.csv"), targets=["y"], test=0.0)
    assert features(dataset) == ["x"] and len(dataset.notes()) == 3


def test_undeclared_dates_are_errors(tmp_path: Path) -> None:
    days = [f"2023-{1 + row // 28:02}-{1 + row % 28:02}" for row in range(ROWS)]
    columns = {"day": days, "noise": NOISE}
    with pytest.raises(
        ConfigError, match=r"t.csv:2: '2023-01-01' in column 'day' looks like a date.*`dates`.*`exclude`"
    ):
        table(tmp_path, {"day": [days[0], *days[:-1]], "noise": NOISE}).describe()
    for option in ("dates", "categorical", "exclude"):
        assert ("day" in features(table(tmp_path, columns, **{option: ["day"]}))) == (option != "exclude")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["nose"]}, "no column 'nose', which `exclude` names. Did you mean 'noise'"),
        ({"dates": ["nose"]}, "no column 'nose', which `dates` names"),
        ({"exclude": ["noise"], "features": ["noise"]}, "'noise' can't be in `features` and `exclude` at once"),
        ({"exclude": ["noise", "x"]}, "no feature column is left"),
    ],
)
def test_contradictory_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table(tmp_path, {"noise": NOISE, "x": NOISE}, **options).describe()


def test_many_levels(tmp_path: Path) -> None:
    users = [f"u{row % 30}" for row in range(ROWS)]
    with pytest.raises(ConfigError, match=r"has 30 categories, more than 20: .* `categorical` or raise `levels`"):
        table(tmp_path, {"user": users}, levels=20).describe()
    for options in ({"levels": 30}, {"levels": 20, "categorical": ["user"]}):
        (column,) = table(tmp_path, {"user": users}, **options).describe().columns
        assert len(column.levels or ()) == 30
