"""Tables as text that fits the terminal: wrapped, split or written as blocks, never cut."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from mtlcli.text import printable

Rows = Sequence[Sequence[str]]
GAP = "  "
NARROWEST = 20  # characters of a column of text that is worth wrapping


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none, so that no line has to end."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def lines(rows: Rows, width: int | None = None) -> Iterator[str]:
    """The lines of a table with aligned columns, the last of which is text; what a terminal would act on is escaped.

    width: the most characters of a line, by default the terminal's. Where a line is longer the last column is wrapped,
    or each row becomes a block; without a limit (no terminal) a row stays one line, however long.
    """
    rows = [list(map(printable, row)) for row in rows]
    width = terminal_width() if width is None else width
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    indent = sum(widths) + len(GAP) * len(widths)
    longest = max(len(row[-1]) for row in rows)
    if width is not None and indent + min(longest, NARROWEST) > width:
        yield from _blocks(rows, 1, width)
        return
    for *cells, last in rows:
        start = "".join(f"{cell:<{size}}{GAP}" for cell, size in zip(cells, widths, strict=True))
        wrapped = [last] if width is None else textwrap.wrap(last, width - indent)
        for number, part in enumerate(wrapped or [""]):
            yield ((start if number == 0 else " " * indent) + part).rstrip()


def figures(rows: Rows, keys: int = 1, texts: int | None = None, width: int | None = None) -> Iterator[str]:
    """The lines of a table of figures: the first `keys` columns say what a row is, the others are figures.

    texts: how many of the first columns are aligned to the left; default: the key columns.
    width: as of `lines`. Where a line is longer, the columns are divided among several tables, each with the key
    columns and without the rows that have nothing there; where not even one column fits, each row becomes a block.
    """
    rows = [list(map(printable, row)) for row in rows]
    width = terminal_width() if width is None else width
    texts = keys if texts is None else texts
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    start = sum(sizes[:keys]) + len(GAP) * (keys - 1)
    parts = _parts([len(GAP) + size for size in sizes[keys:]], None if width is None else width - start)
    if parts is None:
        assert width is not None
        yield from _blocks(rows, keys, width)
        return
    for number, part in enumerate(parts):
        if number:
            yield ""
        columns = [*range(keys), *(keys + at for at in part)]
        head, *body = rows
        kept = [row for row in body if len(parts) == 1 or any(row[keys + at] for at in part)]
        for row in [head, *kept]:
            cells = [f"{row[at]:<{sizes[at]}}" if at < texts else f"{row[at]:>{sizes[at]}}" for at in columns]
            yield GAP.join(cells).rstrip()


def _parts(sizes: Sequence[int], room: int | None) -> list[list[int]] | None:
    """The columns of these sizes, in order, divided into parts that fit the room; None where one doesn't."""
    if room is None:
        return [list(range(len(sizes)))]
    parts: list[list[int]] = [[]]
    left = room
    for at, size in enumerate(sizes):
        if size > room:
            return None
        if size > left:
            parts.append([])
            left = room
        parts[-1].append(at)
        left -= size
    return parts


def _blocks(rows: Rows, keys: int, width: int) -> Iterator[str]:
    """Each row as its key and, indented, a line `name  cell` for each other cell that isn't empty."""
    head, *body = rows
    names = max(map(len, head[keys:]), default=0)
    for row in body:
        yield " ".join(row[:keys])
        for name, cell in zip(head[keys:], row[keys:], strict=True):
            if cell:
                start = f"{GAP}{name:<{names}}{GAP}"
                room = max(NARROWEST, width - len(start))
                first, *more = textwrap.wrap(cell, room, break_long_words=False) or [""]
                yield f"{start}{first}".rstrip()
                yield from (" " * len(start) + part for part in more)


def sentence(text: str, width: int | None = None) -> str:
    """The text, escaped, wrapped at spaces to `width`: by default the terminal's, as of `lines`."""
    width = terminal_width() if width is None else width
    shown = printable(text)
    if width is None:
        return shown
    return "\n".join(textwrap.wrap(shown, width, break_long_words=False, break_on_hyphens=False))
