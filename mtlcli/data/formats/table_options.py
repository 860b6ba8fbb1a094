"""Types, defaults and checks of the options of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mtlcli.config.options import Options
from mtlcli.config.type_names import TypeDescription
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.text_features import TextSize

# The values that pandas reads as missing, and other common ones.
MISSING_VALUES = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "none", "-", "--", "?",
]  # fmt: skip


def _check_delimiter(text: str) -> str:
    if text == "\\t":  # as a shell passes it
        return "\t"
    if len(text) != 1 or text in '"\r\n\0':
        raise ValueError("not a delimiter")
    return text


Delimiter = Annotated[
    str,
    Field(min_length=1, max_length=2),
    AfterValidator(_check_delimiter),
    TypeDescription("one character, not a quote or a line break (`\\t` is a tab)", "characters"),
]

Names = Annotated[list[str], Field(min_length=1)]


class Classes(Options):
    """Classes of a target in the order that the user states.

    Attributes:
        type: `classes`, or `tags` for a class of each word.
        classes: names of the classes, at least two. Numbers match any spelling of the same number.
        others: another value in the table is an error (`error`) or a missing label (`missing`).
    """

    type: Literal["classes", "tags"] = "classes"
    classes: Annotated[list[str | int | float], Field(min_length=2)]
    others: Literal["error", "missing"] = "error"


def _to_plain(classes: Classes) -> dict[str, Any]:
    return {"type": classes.type, "classes": [str(name).strip() for name in classes.classes], "others": classes.others}


StatedClasses = Annotated[Classes, AfterValidator(_to_plain)]
TargetType = Literal["classes", "binary", "real", "tags", "text"] | list[str] | dict[str, Any]
"""Declared type of a target: a list has the columns of a multilabel target, a dict the options of `Classes`."""
Targets = Annotated[
    Names | dict[str, Literal["classes", "binary", "real", "tags", "text"] | Names | StatedClasses],
    TypeDescription(
        "a list of columns that isn't empty, or a mapping of columns to 'classes', 'binary', 'real', 'tags', 'text', a "
        "list of columns of 0 and 1, or {classes: [NAME, NAME, …], others: error or missing}",
        "lists or mappings of columns",
    ),
]
"""The option `targets` of a table."""
Text = Annotated[
    list[str] | dict[str, TextSize],
    TypeDescription("a list of columns, or a mapping of columns to numbers of features ≥ 1", "lists of columns"),
]
"""The option `text` of a table: columns, or column → number of its features."""
Booleans = Annotated[
    list[str] | dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]],
    TypeDescription("a list of columns, or a mapping of columns to [WORD FOR 1, WORD FOR 0]", "lists of columns"),
]
"""The option `booleans` of a table: columns, or column → its words for 1 and 0."""


def make_notation(
    decimal: Literal[".", ","],
    thousands: Literal["", ",", ".", " ", "'"],
    dates: Mapping[str, str],
    booleans: Mapping[str, Sequence[str]],
) -> Notation:
    """Create the notation of a table.

    Args:
        decimal: decimal mark.
        thousands: mark between groups of three digits; "" for none.
        dates: column of dates → its format.
        booleans: column of truth values → its words for 1 and 0; none for the usual ones.

    Returns:
        The notation.

    Raises:
        ValueError: two marks, or two words of a column, are the same, or a word is empty.
    """
    if decimal == thousands:
        raise ValueError(f"`decimal` and `thousands` are both {decimal!r}")
    for name, words in booleans.items():
        if words and (len({word.strip().casefold() for word in words}) < len(words) or not all(map(str.strip, words))):
            raise ValueError(f"`booleans`: the column {name!r} needs two different words, for 1 and for 0")
    stripped = {name: tuple(word.strip() for word in words) for name, words in booleans.items()}
    return Notation(decimal, thousands, tuple(dates.items()), tuple(stripped.items()))


def check_declarations(**declarations: Collection[str]) -> None:
    """Check that no column is declared in two ways.

    Args:
        **declarations: option, such as `dates` → columns listed in it.

    Raises:
        ValueError: a column is listed in two options.
    """
    for (first, columns), (second, others) in combinations(declarations.items(), 2):
        if both := [name for name in columns if name in others]:
            raise ValueError(f"the column {both[0]!r} is listed in both `{first}` and `{second}`")
