from __future__ import annotations

import math
from typing import Any

import pytest

from mtlcli.data.formats.numerals import ISO, Notation, describe_notation, detect_notation, find_dotted_thousands


@pytest.mark.parametrize(
    ("options", "value", "number"),
    [
        ({}, "1.5", 1.5),
        ({}, " 1e3 ".strip(), 1000.0),
        ({}, "1,5", None),
        ({}, "1_000", None),
        ({}, "1e400", None),
        ({"decimal": ","}, "1,5", 1.5),
        ({"decimal": ","}, "-,5e-1", -0.05),
        ({"decimal": ","}, "1.5", None),
        ({"decimal": ","}, "3,238", 3.238),
        ({"thousands": ","}, "84,120", 84120.0),
        ({"thousands": ","}, "1,234,567.5", 1234567.5),
        ({"thousands": ","}, "84", 84.0),
        ({"thousands": ","}, "1,5", None),
        ({"thousands": ","}, "1,2345", None),
        ({"decimal": ",", "thousands": "."}, "1.234,5", 1234.5),
        ({"decimal": ",", "thousands": "."}, "1.5", None),
        ({"thousands": " "}, "12 345 678", 12345678.0),
        ({"thousands": " "}, "12\u202f345", 12345.0),
        ({"thousands": "'"}, "12'345.50", 12345.5),
    ],
)
def test_numbers_in_a_notation(options: dict[str, Any], value: str, number: float | None) -> None:
    parsed, wrong = Notation(**options).numbers([None, value])
    assert wrong == ([1] if number is None else []) and math.isnan(parsed[0])
    assert number is None or parsed[1] == number


def test_the_fast_path_gives_the_same_numbers() -> None:
    """Columns in which every value is a number are parsed by a faster path."""
    values = ["1", None, "-0.5", " 2e3".strip(), "٣"]
    parsed, wrong = Notation().numbers(values)
    slow, _ = Notation().numbers([*values, "x"])
    assert wrong == [] and parsed.tolist() == pytest.approx(slow[:-1].tolist(), rel=0, abs=0, nan_ok=True)
    for odd in ("nan", "inf", "1e39", "1_0"):
        assert Notation().numbers(["1", None, odd])[1] == [2]
    assert Notation().numbers([])[0].dtype == Notation().numbers([None])[0].dtype == "float64"


@pytest.mark.parametrize(
    ("form", "value", "days"),
    [
        (ISO, "1970-01-02", 1.0),
        (ISO, "2000-03-01", 11017.0),
        (ISO, "1969-12-31T12:00:00", -0.5),
        (ISO, "1970-01-01T06:00:00+06:00", 0.0),
        (ISO, "1970-01-01 00:00:00.5", 0.5 / 86400),
        ("%d.%m.%Y", "01.03.2000", 11017.0),
        (ISO, "01.03.2000", None),
        ("%d.%m.%Y", "31.02.2000", None),
    ],
)
def test_dates_are_days(form: str, value: str, days: float | None) -> None:
    parsed, wrong = Notation(dates=(("day", form),)).numbers([value], "day")
    assert wrong == ([0] if days is None else [])
    assert days is None or parsed[0] == days


def test_the_canonical_spelling_of_a_number() -> None:
    plain = Notation()
    for spelling in ("1", "1.0", "01", "+1", "1e0", "1.", "001.00"):
        assert plain.canonical(spelling) == "1"
    assert plain.canonical("-0.0") == plain.canonical("0") == "0"
    assert plain.canonical("12345678901234567890") != plain.canonical("12345678901234567891")  # equal in float64
    assert {plain.canonical(value) for value in ("a", "1_0", "nan", "inf", "1,5", "")} == {None}
    assert Notation(decimal=",").canonical("1,50") == plain.canonical("1.5") == "1.5"
    assert len(plain.canonical("1e300") or "") < 10
    assert plain.canonical("9" * 60 + "1") != plain.canonical("9" * 60 + "2")
    assert plain.canonical("0.10e-50") == plain.canonical("1e-51") and plain.canonical("1e999999999") == "1E+999999999"
    assert len(plain.canonical("7" * 100_000) or "") == 100_000


LIKENESS = {
    "decimal comma": (["4,52", "9,24", "5,0"], 'set `decimal: ","`'),
    "one decimal comma is enough": (["3,238", "5,359", "0,58"], "a decimal comma: set `decimal"),
    "either": (["3,238", "5,359", "0,580"], '(set `decimal: ","`) or a comma between thousands'),
    "thousands": (["1,234,567", "84,120", "9,100.5"], 'commas between thousands: set `thousands: ","`'),
    "german": (["1.234,5", "84,1", "1.000.000,0"], "dots between thousands and a decimal comma"),
    "spaces": (["12 345", "1 234 567", "9 100,5"], 'set `thousands: " "`'),
    "apostrophes": (["12'345", "1'234'567"], "apostrophes"),
    "unit": ([f"{at}.5 m2" for at in range(9)], "with the unit 'm2'"),
    "currency": ([f"${at},200" for at in range(9)], "with the unit '$'"),
    "percent": ([f"{at}%" for at in range(9)], "with the unit '%'"),
    "ISO dates": (["2023-11-26", "2023-10-15"], "list the column under `dates`"),
    "ISO times": (["2023-11-26T10:00:00Z", "2023-10-15 09:00:00"], "list the column under `dates`"),
    "dates": (["26.11.2023", "15.10.2023"], "its format under `dates`"),
    "dates with slashes": (["11/26/2023", "10/15/23"], "its format under `dates`"),
    "dates with names": (["26 Nov 2023", "15 Oct 2023"], "its format under `dates`"),
    "times": ([f"{at}:30" for at in range(9)], "a time of day"),
    "dashes": ([f"\u2212{at}.5" for at in range(9)], "a dash in place of the minus sign"),
    "brackets": ([f"({at},234.50)" for at in range(9)], "negative number in brackets"),
    "minus behind": ([f"{at}.5-" for at in range(9)], "minus sign behind"),
    "marked as text": ([f'="{at}.5"' for at in range(9)], "marked as text"),
    "currency code": ([f"USD {at},200" for at in range(9)], "with the unit 'USD'"),
    "negative currency": ([f"-$ {at}.50" for at in range(9)], "with the unit '$'"),
    "no-break space": ([f"{at},5\u00a0%" for at in range(9)], "with the unit '%'"),
    "dates without zeros": (["2023-1-26", "2023-10-5"], "its format under `dates`"),
    "with other values": (["4,52", "9,24", "-", "n.v."][:3], "decimal comma"),
}


@pytest.mark.parametrize(("values", "words"), LIKENESS.values(), ids=LIKENESS)
def test_recognized_notations(values: list[str], words: str) -> None:
    likeness = detect_notation(values)
    assert likeness is not None and words in likeness[1]


@pytest.mark.parametrize(
    "values",
    [
        ["Ulm", "Bonn"], ["<18", "18-30", "30+"], ["1st", "2nd", "3rd", "4th", "5th", "6th"], ["2 doors", "4 doors"],
        ["a,b", "c"], ["1A", "2B", "3C", "4D", "5E", "6F"], ["x1", "x2"], ["0…51"], ["1.2.3", "1.2.4"], ["2010-11-"],
        ["10.0.0.1", "10.0.0.2"], ["A 1", "B 2"], ["+49 30 123", "(030) 1234"],
        ["16-17", "18-"], ["kr", "EUR", "USD"], ["Ulm", "Bonn", "4,5"],
    ],
)  # fmt: skip
def test_ordinary_categories(values: list[str]) -> None:
    assert detect_notation(values) is None


def test_a_decimal_point_under_another_notation() -> None:
    assert "`decimal` is another mark" in (describe_notation("1.288") or "")
    assert Notation(decimal=",").numbers(["1.288"])[1] == [0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["950", "1.250", "2.134", "3.999", "12.001", "100.000", None], "1.250"),
        (["1.250", "2.134", "3.999", "12.001", "100.000"], None),  # decimals of a fixed length
        (["950", "1.251", "2.134", "3.999", "12.001", "101.007"], None),  # none ends in 0
        (["950", "0.250", "2.130", "3.999", "12.001", "100.000"], None),
        (["950", "1.25", "2.130", "3.999", "12.001", "100.000"], None),
        (["950", "1.250"], None),
        (["1950", "1.250", "2.134", "3.999", "12.001", "100.000"], None),
    ],
)
def test_dots_that_may_separate_thousands(values: list[str | None], expected: str | None) -> None:
    assert find_dotted_thousands(values) == expected


def test_a_single_value() -> None:
    assert "unit 'kg'" in (describe_notation("5 kg") or "")
    assert "decimal comma" in (describe_notation("5,5") or "")
    assert describe_notation("forty") is None
