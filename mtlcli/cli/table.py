"""Tables as text."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from mtlcli.printable import printable


def lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table with aligned columns; what a terminal would act on is escaped.

    On a terminal the last column is wrapped to its width; elsewhere a row stays one line, however long.
    """
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    indent = sum(widths) + 2 * len(widths)
    room = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() else 0
    for *cells, last in rows:
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        wrapped = textwrap.wrap(last, room) if room > 20 else [last]
        for number, part in enumerate(wrapped or [""]):
            yield ((start if number == 0 else " " * indent) + part).rstrip()


def markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table; the first row is its head."""
    head, *body = [[printable(cell).replace("|", "\\|") for cell in row] for row in rows]
    for row in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(row)} |"
