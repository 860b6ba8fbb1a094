"""Tables of text that fit a terminal: wrapped, split or written as blocks, without cutting cells."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from mtlcli.text import printable

Rows = Sequence[Sequence[str]]
GAP = "  "
NARROWEST = 20  # minimum width of a wrapped column, in characters


def terminal_width() -> int | None:
    """Return the width of the terminal; None if stdout is no terminal, where lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def align_text(rows: Rows, width: int | None = None) -> Iterator[str]:
    """Yield the lines of a table with aligned columns, of which the last is text. Control characters are escaped.

    Args:
        rows: the cells, of which the first row is the header.
        width: maximum number of characters of a line. Default: the terminal's width. To fit longer lines, the last
            column is wrapped, or each row becomes a block. Without a terminal, each row is one line of any length.

    Yields:
        The lines.
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
        for number, text in enumerate(wrapped or [""]):
            yield ((start if number == 0 else " " * indent) + text).rstrip()


def align_numbers(rows: Rows, keys: int = 1, texts: int | None = None, width: int | None = None) -> Iterator[str]:
    """Yield the lines of a table of numbers, which follow key columns.

    Args:
        rows: the cells, of which the first row is the header.
        keys: number of leading columns that identify a row.
        texts: number of leading columns aligned to the left. Default: the key columns.
        width: as for `align_text`. To fit longer lines, the columns are split into several tables, each with the key
            columns and without empty rows; if not even one column fits, each row becomes a block.

    Yields:
        The lines.
    """
    rows = [list(map(printable, row)) for row in rows]
    width = terminal_width() if width is None else width
    texts = keys if texts is None else texts
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    start = sum(sizes[:keys]) + len(GAP) * (keys - 1)
    groups = _group_columns([len(GAP) + size for size in sizes[keys:]], None if width is None else width - start)
    if groups is None:
        assert width is not None
        yield from _blocks(rows, keys, width)
        return
    for number, group in enumerate(groups):
        if number:
            yield ""
        columns = [*range(keys), *(keys + at for at in group)]
        head, *body = rows
        kept = [row for row in body if len(groups) == 1 or any(row[keys + at] for at in group)]
        for row in [head, *kept]:
            cells = [f"{row[at]:<{sizes[at]}}" if at < texts else f"{row[at]:>{sizes[at]}}" for at in columns]
            yield GAP.join(cells).rstrip()


def _group_columns(sizes: Sequence[int], width: int | None) -> list[list[int]] | None:
    """Split columns of these sizes into consecutive groups that fit the width; None if a column doesn't."""
    if width is None:
        return [list(range(len(sizes)))]
    groups: list[list[int]] = [[]]
    left = width
    for at, size in enumerate(sizes):
        if size > width:
            return None
        if size > left:
            groups.append([])
            left = width
        groups[-1].append(at)
        left -= size
    return groups


def _blocks(rows: Rows, keys: int, width: int) -> Iterator[str]:
    """Yield each row as a block: its key and, indented, a line `name  cell` for each cell that isn't empty."""
    head, *body = rows
    names = max(map(len, head[keys:]), default=0)
    for row in body:
        yield " ".join(row[:keys])
        for name, cell in zip(head[keys:], row[keys:], strict=True):
            if cell:
                start = f"{GAP}{name:<{names}}{GAP}"
                first, *more = textwrap.wrap(cell, max(NARROWEST, width - len(start)), break_long_words=False) or [""]
                yield f"{start}{first}".rstrip()
                yield from (" " * len(start) + text for text in more)


def wrap_text(text: str, width: int | None = None) -> str:
    """Escape a text and wrap it at spaces to a width. Default: the terminal's, as for `align_text`."""
    width = terminal_width() if width is None else width
    line = printable(text)
    if width is None:
        return line
    return "\n".join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False))
