"""Header of a table in delimited text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mtlcli.errors import ConfigError, Problem
from mtlcli.text import join_names, name_problem, quote

MAX_LISTED = 5  # invalid names that are listed one by one
MAX_COLUMNS = 50_000


def fill_blank_names(header: list[str]) -> list[str]:
    """Replace every blank name but the first by `Unnamed: POSITION`, as pandas does."""
    return [
        name or ("" if at == header.index("") or not any(header) else f"Unnamed: {at}")
        for at, name in enumerate(header)
    ]


def suggest_delimiter(header: Sequence[str]) -> str:
    """Suggest the delimiter of a header that seems to be separated by another character."""
    if len(header) != 1:
        return ""
    counts = {mark: header[0].count(mark) for mark in ";\t|,"}
    mark = max(counts, key=lambda character: counts[character])
    if not counts[mark]:
        return ""
    spelled = "\\t" if mark == "\t" else mark
    return f'. If the values are separated by {"a tab" if mark == chr(9) else repr(mark)}, set `delimiter: "{spelled}"`'


def check_columns(path: Path, header: Sequence[str], place: str = "") -> None:
    """Check the number and the names of a table's columns.

    Args:
        path: the file.
        header: the names.
        place: end of the place in messages, such as the line of the header.

    Raises:
        ConfigError: there are too many columns, or a name is repeated, too long or has characters that can't be
            printed.
    """
    if len(header) > MAX_COLUMNS:
        raise ConfigError(f"{path}{place}: {len(header)} columns, but a table can have at most {MAX_COLUMNS}")
    if faulty := [
        f"{path}{place}: the name of column {at}, {quote(name)}, {why}{suggest_delimiter(header)}"
        for at, name in enumerate(header, 1)
        if (why := name_problem(name))
    ]:
        raise ConfigError(map(Problem, faulty[:MAX_LISTED]))
    if repeated := [quote(name) for name, count in Counter(header).items() if count > 1]:
        raise ConfigError(
            f"{path}{place}: the header names {join_names(sorted(repeated))} more than once; each column needs its own "
            "name in the first line"
        )


def check_header(path: Path, header: list[str]) -> None:
    """Check the first line of a text file.

    Args:
        path: the file.
        header: its values.

    Raises:
        ConfigError: it is not a header.
    """
    if not any(header):
        raise ConfigError(f"{path}: is empty, or has no header in its first line")
    if header[0].startswith("sep=") and not any(header[1:]):
        mark = header[0].removeprefix("sep=")  # empty if it is `delimiter` itself
        remedy = f', and set `delimiter: "{mark}"`' if mark else ""
        raise ConfigError(f"{path}:1: the line sets the delimiter for Excel and is not a header: remove it{remedy}")
    check_columns(path, header, ":1")
