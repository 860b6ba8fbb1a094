import pytest

from mtlcli.text import LISTED, MAX_LINE, MAX_NAME, join_names, name_problem, printable, quote


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
