"""Text for people: escaping and shortening, the one format of numbers, and the writers of Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
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


DIGITS = 4


def format_number(value: float | None, digits: int = DIGITS, *, zeros: bool = True) -> str:
    """Format a number with a fixed number of significant digits: `0.8542`, `12.30`, `1.234e+06`, `1.7e-08`.

    Args:
        value: the number. An int is a count and is written in full, with thousands separators.
        digits: significant digits of a float.
        zeros: keep trailing zeros, so that the numbers of a column have equal precision. Settings such as learning
            rates are shorter without.

    Returns:
        The text; empty for None, and `nan`, `inf` or `-inf` for floats that aren't finite.
    """
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if not math.isfinite(value) or not zeros:
        return f"{value:.{digits}g}"
    return f"{value:#.{digits}g}".rstrip(".")


def format_interval(mean: float, half: float | None = None, *, signed: bool = False) -> str:
    """Format `mean ± half`, such as `0.9712 ± 0.0031`.

    Both have as many decimals as the larger of the two needs for four significant digits.

    Args:
        mean: the centre of the interval.
        half: half its width; None for a mean without an interval.
        signed: write `+` before a positive mean, as in `+0.5213 ± 0.4020`.

    Returns:
        The text.
    """
    sign = "+" if signed and mean > 0 else ""
    if half is None:
        return sign + format_number(mean)
    largest = max(abs(mean), half)
    if not 1e-4 <= largest < 9999.5:  # where `format_number` writes an exponent
        return f"{sign}{format_number(mean)} ± {format_number(half)}"
    exponent = int(f"{largest:.{DIGITS - 1}e}".partition("e")[2])  # after rounding
    decimals = DIGITS - 1 - exponent
    if 0 < half < 10.0**-decimals:
        return f"{sign}{mean:.{decimals}f} ± {format_number(half, 2)}"
    return f"{sign}{round(mean, decimals) + 0.0:.{decimals}f} ± {half:.{decimals}f}"  # + 0.0: no −0.00


def format_duration(seconds: float) -> str:
    """Format a duration with two significant digits: `0.31 s`, `42 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:#.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_csv(rows: Sequence[Sequence[object]]) -> str:
    r"""Format rows as CSV.

    Args:
        rows: the rows, of which the first is usually the header. A float is written with all its digits; None and a
            float that isn't finite are empty cells.

    Returns:
        The text, with `\n` after each row.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_csv_cell(value) for value in row] for row in rows])
    return text.getvalue()


def _csv_cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def format_markdown(rows: Sequence[Sequence[str]], texts: int | None = None) -> list[str]:
    """Format a Markdown table.

    Args:
        rows: the cells; the first row is the header. Control characters and `|` are escaped.
        texts: number of leading columns that are text; the others hold numbers and are aligned to the right. Default:
            all columns are text.

    Returns:
        Its lines: the header, the line below it, and one for each other row.
    """
    head, *body = [[printable(cell).replace("|", "\\|") for cell in row] for row in rows]
    texts = len(head) if texts is None else texts
    rule = ["---" if at < texts else "---:" for at in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]
