from __future__ import annotations

import pytest

from mtlcli.text import LISTED, MAX_NAME, join_names, name_problem, quote


@pytest.mark.parametrize(
    "name", ["", "dog", "Köln", "犬\u3000猫", "a b", "a|b", "é\u0301", "T-shirt/top", "x" * MAX_NAME]
)
def test_what_can_be_a_name(name: str) -> None:
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
def test_what_can_not(name: str, why: str) -> None:
    assert why in str(name_problem(name))


def test_what_messages_quote_is_escaped_and_short() -> None:
    assert quote("\x1b[2J") == r"'\x1b[2J'" and quote(None) == "None"
    assert len(quote("x" * 10**6)) < 100
    assert join_names(["a", "b"]) == "a, b"
    assert join_names([str(number) for number in range(1000)]).endswith(f" {LISTED - 1}, … (1000)")
