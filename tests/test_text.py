import math

import numpy as np
import pytest

from mtlcli.text import (
    LISTED,
    MAX_LINE,
    MAX_NAME,
    format_csv,
    format_duration,
    format_interval,
    format_markdown,
    format_number,
    join_names,
    name_problem,
    printable,
    quote,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("8×8, Δm, 手, é", "8×8, Δm, 手, é"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("\x1b[31mx", r"\x1b[31mx"),
        ("\x9b31m\x07\x7f", r"\x9b31m\x07\x7f"),
        ("a\nerror: b\r\t", r"a\nerror: b\r\t"),
        ("\u202egnp.exe\u2028\ufeff", r"\u202egnp.exe\u2028\ufeff"),
        ("\ud800\U000e0001", r"\ud800\U000e0001"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_lines_are_cut() -> None:
    assert printable("x" * MAX_LINE) == "x" * MAX_LINE
    assert printable("x" * 10**6) == "x" * (MAX_LINE - 1) + "…"


@pytest.mark.parametrize(
    "name", ["", "dog", "Köln", "犬\u3000猫", "a b", "a|b", "é\u0301", "T-shirt/top", "x" * MAX_NAME]
)
def test_valid_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("\x1b[31mred", "U+001B"),
        ("two\nlines", "U+000A"),
        ("a\tb", "U+0009"),
        ("\x9b2J", "U+009B"),
        ("a\u202eb", "U+202E"),
        ("a\u2028b", "U+2028"),
        ("\udcff", "U+DCFF"),
        ("x" * (MAX_NAME + 1), "has 257 characters"),
    ],
)
def test_invalid_names(name: str, why: str) -> None:
    assert why in str(name_problem(name))


def test_quoted_values_are_escaped_and_short() -> None:
    assert quote("\x1b[2J") == r"'\x1b[2J'" and quote(None) == "None"
    assert len(quote("x" * 10**6)) < 100
    assert join_names(["a", "b"]) == "a, b"
    assert join_names([str(number) for number in range(1000)]).endswith(f" {LISTED - 1}, … (1000)")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.85417, "0.8542"), (1.0, "1.000"), (0.9, "0.9000"), (12.3, "12.30"), (1234.4, "1234"), (9999.6, "1.000e+04"),
        (1234567.0, "1.235e+06"), (1e30, "1.000e+30"), (-3.14e58, "-3.140e+58"), (0.00012345, "0.0001234"),
        (1.7e-8, "1.700e-08"), (0.0, "0"), (-0.0, "0"), (5e-324, "4.941e-324"), (1234567, "1,234,567"), (0, "0"),
        (None, ""), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"),
    ],
)  # fmt: skip
def test_four_significant_digits_of_any_size(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_formatted_numbers_are_exact_to_four_digits() -> None:
    """For 600 orders of magnitude: at most 11 characters, exact to half a unit of the fourth digit."""
    generator = np.random.default_rng(0)
    for value in (generator.choice([-1, 1], 500) * 10 ** generator.uniform(-300, 300, 500)).tolist():
        text = format_number(value)
        assert len(text) <= 11
        assert float(text) == pytest.approx(value, rel=5.001e-4)


def test_settings_without_trailing_zeros() -> None:
    assert [format_number(rate, zeros=False) for rate in (0.002, 1e-5, 0.0, 0.000123456)] == [
        "0.002", "1e-05", "0", "0.0001235",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.97121, 0.00314, "+0.9712 ± 0.0031"), (9.9999999, 2.4839, "+10.00 ± 2.48"), (-3.1, 12.0, "-3.10 ± 12.00"),
        (0.8, 1e-9, "+0.8000 ± 1.0e-09"), (0.8, 0.0, "+0.8000 ± 0.0000"), (-1e-9, 0.5, "0.0000 ± 0.5000"),
        (0.0, 0.0, "0 ± 0"), (1e30, 2e29, "+1.000e+30 ± 2.000e+29"), (2e-6, 1e-6, "+2.000e-06 ± 1.000e-06"),
        (1e30, None, "+1.000e+30"), (-0.5, None, "-0.5000"),
    ],
)  # fmt: skip
def test_intervals_have_the_decimals_of_the_larger_number(mean: float, half: float | None, text: str) -> None:
    assert format_interval(mean, half, signed=True) == text
    assert format_interval(mean, half) == text.removeprefix("+")


def test_durations() -> None:
    assert [format_duration(s) for s in (0.031, 1.26, 42.3, 300.0, 12600.0)] == [
        "0.031 s", "1.3 s", "42 s", "5 min", "3.5 h",
    ]  # fmt: skip


def test_markdown() -> None:
    assert format_markdown([["a|b", "c"], ["\x1b[31m", "x\ny"]]) == [
        r"| a\|b | c |",
        "| --- | --- |",
        r"| \x1b[31m | x\ny |",
    ]
    assert format_markdown([["task", "n"]], texts=1)[1] == "| --- | ---: |"


def test_csv_has_all_digits_and_leaves_missing_values_empty() -> None:
    assert format_csv([["a", "b"], [0.1 + 0.2, 3], [math.nan, None]]) == "a,b\n0.30000000000000004,3\n,\n"
