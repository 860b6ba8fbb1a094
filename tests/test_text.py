import pytest

from mtlcli.text import MAX_LINE, printable


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
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_nobody_would_read_is_cut() -> None:
    assert printable("x" * MAX_LINE) == "x" * MAX_LINE
    assert printable("x" * 10**6) == "x" * (MAX_LINE - 1) + "…"
