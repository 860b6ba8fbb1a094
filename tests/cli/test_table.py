from mtlcli.cli import table


def test_columns_are_aligned_and_what_a_terminal_would_act_on_is_escaped() -> None:
    rows = [["task", "size", "classes"], ["a", "2", "\x1b[2Jyes, [red]no[/red]"], ["\x9bb", "10", ""]]
    assert list(table.lines(rows)) == [
        "task   size  classes",
        r"a      2     \x1b[2Jyes, [red]no[/red]",
        r"\x9bb  10",
    ]


def test_markdown() -> None:
    assert list(table.markdown([["a|b", "c"], ["\x1b[31m", "x\ny"]])) == [
        r"| a\|b | c |",
        "| --- | --- |",
        r"| \x1b[31m | x\ny |",
    ]
