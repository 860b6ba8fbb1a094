"""Text from files and command lines, made safe and short enough to print."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_LINE = 4000  # characters of a line


def printable(text: str) -> str:
    """The text in one line: escaped where a terminal would act on it (colours, line breaks, writing from right to
    left), and cut where it is too long to read.
    """
    shown = text if text.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in text)
    return shown if len(shown) <= MAX_LINE else shown[: MAX_LINE - 1] + "…"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


MAX_NAME = 256  # characters of the name of a column or a class
SHOWN = 60  # characters of a value that a message quotes
LISTED = 20  # names that a message lists

# Control characters (escape codes begin with one), separators of lines and paragraphs, marks that turn the direction of
# the text around them, and what stands for the bytes of a file's name that are no text.
_ACTING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def fault(name: str) -> str | None:
    """Why `name` can't be one, to follow it in a message; None where it can."""
    if found := _ACTING.search(name):
        return f"holds the character U+{ord(found[0]):04X}, which can't be printed"
    return f"is {len(name)} characters long, and {MAX_NAME} are the most" if len(name) > MAX_NAME else None


def shown(value: str | None) -> str:
    """A value in quotes, escaped, and cut where it is long."""
    return repr(value) if value is None or len(value) <= SHOWN else f"{value[:SHOWN]!r}…"


def listed(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    return ", ".join(names[:LISTED]) + (f", … ({len(names)})" if len(names) > LISTED else "")
