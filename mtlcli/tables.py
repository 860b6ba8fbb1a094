"""Numbers and tables as text: the one format of numbers, and the writers of Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from mtlcli.text import printable

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
