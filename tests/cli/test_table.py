import pytest

from mtlcli.cli import table


def test_columns_are_aligned_and_control_characters_escaped() -> None:
    rows = [["task", "size", "classes"], ["a", "2", "\x1b[2Jyes, [red]no[/red]"], ["\x9bb", "10", ""]]
    assert list(table.align_text(rows)) == [
        "task   size  classes",
        r"a      2     \x1b[2Jyes, [red]no[/red]",
        r"\x9bb  10",
    ]


METRICS = [
    ["split", "task", "n", "accuracy", "r2", "mse"],
    ["val", "digit", "144", "0.8889", "", ""],
    ["val", "ink", "144", "", "0.9671", "3.650e-05"],
]


def test_numbers_that_fit_are_one_table() -> None:
    assert list(table.align_numbers(METRICS, keys=3, texts=2, width=46)) == [
        "split  task     n  accuracy      r2        mse",
        "val    digit  144    0.8889",
        "val    ink    144            0.9671  3.650e-05",
    ]


def test_columns_that_do_not_fit_go_into_another_table_without_empty_rows() -> None:
    assert list(table.align_numbers(METRICS, keys=3, texts=2, width=45)) == [
        "split  task     n  accuracy      r2",
        "val    digit  144    0.8889",
        "val    ink    144            0.9671",
        "",
        "split  task     n        mse",
        "val    ink    144  3.650e-05",
    ]


def test_rows_become_blocks_if_no_column_fits() -> None:
    assert list(table.align_numbers(METRICS, keys=3, texts=2, width=24)) == [
        "val digit 144",
        "  accuracy  0.8889",
        "val ink 144",
        "  r2        0.9671",
        "  mse       3.650e-05",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 300])
def test_numbers_and_names_are_never_cut(width: int) -> None:
    names = [f"a_task_with_a_long_name_{number}" for number in range(20)]
    rows = [["task", *names]]
    for number, name in enumerate(names):
        rows.append([name, *(f"{number}.234e-0{column % 10}" for column in range(20))])
    lines = list(table.align_numbers(rows, width=width))
    assert "…" not in "".join(lines)
    words = " ".join(lines).split()
    assert all(words.count(name) >= 2 for name in names)
    assert {f"{number}.234e-0{column}" for number in range(20) for column in range(10)} <= set(words)
    if width >= 60:  # wide enough for a name and a column
        assert max(map(len, lines)) <= width


def test_text_in_the_last_column_is_wrapped_and_a_narrow_table_becomes_blocks() -> None:
    rows = [["name", "default", "what it does"], ["hidden", "[256]", "widths of the hidden layers, from the input on"]]
    assert list(table.align_text(rows, width=46)) == [
        "name    default  what it does",
        "hidden  [256]    widths of the hidden layers,",
        "                 from the input on",
    ]
    assert list(table.align_text(rows, width=36)) == [
        "hidden",
        "  default       [256]",
        "  what it does  widths of the hidden",
        "                layers, from the",
        "                input on",
    ]


def test_sentences_are_wrapped_at_spaces() -> None:
    assert table.wrap_text("Δm: mean over\x1b the tasks", width=14) == "Δm: mean\nover\\x1b the\ntasks"
    assert table.wrap_text("one line, however long" * 10) == "one line, however long" * 10  # no terminal
