"""Texts passed from Python, as the inputs of a trunk that reads text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mtlcli.data.formats.text_rows import TextRows
from mtlcli.errors import ConfigError

FORM = "a string, or a pair of strings"


def as_texts(value: Any) -> TextRows:
    """Convert texts to the inputs of N examples.

    Args:
        value: a sequence, an array or a pandas Series of strings or of pairs of strings; None for a missing text.

    Returns:
        The texts.

    Raises:
        ValueError: an example is neither a string nor a pair, or strings and pairs are mixed.
    """
    rows = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise ValueError(f"the trunk reads text: expected a sequence of texts, got {type(value).__name__}")
    width: int | None = None
    for at, row in enumerate(rows):
        texts = (row,) if row is None or isinstance(row, str) else row
        if not isinstance(texts, Sequence) or not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError(f"the trunk reads text: the input of example {at} is not {FORM}, but {str(row)[:60]!r}")
        if row is None:
            continue
        if width not in (None, len(texts)) or len(texts) not in (1, 2):
            raise ValueError(f"the trunk reads text: example {at} has {len(texts)} texts, expected {width or '1 or 2'}")
        width = len(texts)
    pairs = [(None,) * (width or 1) if row is None else (row,) if isinstance(row, str) else tuple(row) for row in rows]
    return TextRows([[_strip(row[at]) for row in pairs] for at in range(width or 1)])


def name_texts(inputs: Iterable[object]) -> tuple[str, ...]:
    """Return a name for each text of an example.

    Args:
        inputs: the inputs of each split.

    Returns:
        One name, or the two of a pair.

    Raises:
        ConfigError: the splits differ in the number of texts of an example.
    """
    widths = {len(texts.columns) for texts in inputs if isinstance(texts, TextRows)}
    if len(widths) > 1:
        raise ConfigError("the inputs of some splits are texts, and those of others are pairs of texts")
    return ("text",) if widths == {1} else ("first", "second")


def _strip(text: str | None) -> str | None:
    return None if text is None else text.strip() or None
