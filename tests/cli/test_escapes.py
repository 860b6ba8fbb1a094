"""Control characters from files and command lines are escaped on the terminal."""

import logging
from collections.abc import Callable, Iterable
from io import StringIO

import pytest
from rich.console import Console

from mtlcli.cli import table
from mtlcli.cli.progress import PlainProgress, StudyLines, StudyTable
from mtlcli.text import format_markdown

HOSTILE = "\x1b[2J[red]x[/red]\x9b"
SHOWN = r"\x1b[2J[red]x[/red]\x9b"


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=100, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_log_lines(console: Console) -> None:
    PlainProgress(console).emit(logging.LogRecord("mtl", logging.WARNING, "", 0, "%s:\n2 lines", (HOSTILE,), None))
    assert printed(console) == f"warning: {SHOWN}:\n2 lines\n"


def test_runs_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    StudyLines().on_run_failure(HOSTILE, "a\nb")
    assert capsys.readouterr().err == f"{SHOWN}: failed: a\\nb\n"


def test_the_live_table_of_a_comparison(console: Console) -> None:
    live = StudyTable(console)
    live.rows = {HOSTILE: {"digit": (0.5, 1)}}
    console.print(live.drawn())
    assert SHOWN in printed(console)


@pytest.mark.parametrize("write", [table.align_text, table.align_numbers, format_markdown])
def test_tables(write: Callable[[list[list[str]]], Iterable[str]]) -> None:
    head, *_, row = write([[HOSTILE, "a"], ["x", HOSTILE]])
    assert SHOWN in head
    assert SHOWN in row


def test_sentences() -> None:
    assert table.wrap_text(HOSTILE) == SHOWN
