"""Escaping and shortening of text from files and command lines before it is printed."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_LINE = 4000  # characters of a line


def printable(text: str) -> str:
    """Return a text in one line that a terminal prints without side effects.

    Args:
        text: any text. Control characters, line breaks and characters that change the direction of the text are
            escaped; a text of more than `MAX_LINE` characters is cut.

    Returns:
        The line.
    """
    line = text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


MAX_NAME = 256  # characters of the name of a column or a class
SHOWN = 60  # characters of a value that a message quotes
LISTED = 20  # names that a message lists

# control characters (escape codes start with one), separators of lines and paragraphs, marks that change the direction
# of the text, and surrogates for the bytes of file names that aren't UTF-8
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def name_problem(name: str) -> str | None:
    """Return the reason why a text can't be a name of a column or class; None if it can.

    Args:
        name: the text.

    Returns:
        The end of a sentence that starts with the name, such as "has 300 characters; the maximum is 256".
    """
    if match := _UNPRINTABLE.search(name):
        return f"contains the character U+{ord(match[0]):04X}, which can't be printed"
    return f"has {len(name)} characters; the maximum is {MAX_NAME}" if len(name) > MAX_NAME else None


def quote(value: str | None) -> str:
    """Return a value in quotes, escaped, and cut to `SHOWN` characters."""
    return repr(value) if value is None or len(value) <= SHOWN else f"{value[:SHOWN]!r}…"


def join_names(names: Sequence[str]) -> str:
    """Join names by commas; of many, only the first `LISTED`."""
    return ", ".join(names[:LISTED]) + (f", … ({len(names)})" if len(names) > LISTED else "")
