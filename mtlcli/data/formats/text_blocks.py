"""Blocks of complete rows of delimited text, that Arrow parses in the same way as Python's `csv`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

BLOCK = 2**20  # bytes that are parsed at once, if they end with a row
LONGEST = 2**24  # bytes of a block without the end of a row, from which on it isn't searched further
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
Positions = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Block:
    """Bytes of complete rows.

    Attributes:
        text: the bytes.
        quoted: whether there are quotes.
        plain: whether quotes are only around values, with two for one in a value, so that all readers of delimited
            text agree on its rows; False as well for a NUL character, or a row without an end.
    """

    text: bytes
    quoted: bool
    plain: bool


def count_lines(file: IO[bytes], size: int) -> int:
    """Count lines, with any line ending.

    Args:
        file: the file.
        size: number of bytes to read, to the end of a line.

    Returns:
        The number of lines.
    """
    lines, last = 0, b""
    while size > 0 and (text := file.read(min(BLOCK, size))):
        lines += text.count(b"\n")
        if b"\r" in text or last == b"\r":
            lines += text.count(b"\r") - text.count(b"\r\n") - (last == b"\r" and text.startswith(b"\n"))
        last, size = text[-1:], size - len(text)
    return lines


def cut_blocks(file: IO[bytes], delimiter: str) -> Iterator[Block]:
    """Cut a file into blocks. The last one may be not `plain`, and is then followed by others that aren't.

    Raises an OSError if the file can't be read.

    Args:
        file: the file, from the first row on.
        delimiter: character between the values, in ASCII.

    Yields:
        The blocks.
    """
    text = b""
    while True:
        piece = file.read(BLOCK)
        text += piece
        if not text:
            return
        quotes = _find(text, b'"')
        end = _find_end(text, quotes) if piece else len(text) * (len(quotes) % 2 == 0)
        if not end:
            if piece and len(text) < LONGEST:
                continue
            yield Block(text, True, False)
            return
        quotes = quotes[: np.searchsorted(quotes, end)]
        block = text[:end]
        yield Block(block, len(quotes) > 0, _is_plain(block, quotes, delimiter))
        text = text[end:]


def _find(text: bytes, character: bytes) -> Positions:
    if character not in text:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.frombuffer(text, np.uint8) == character[0])


def _find_end(text: bytes, quotes: Positions) -> int:
    """Return the end of the last complete row, or 0. A line break between an odd and an even quote is in a value."""
    end = len(text)
    while (at := text.rfind(b"\n", 0, end)) >= 0:
        before = int(np.searchsorted(quotes, at))
        if before % 2 == 0:
            return at + 1
        end = int(quotes[before - 1])
    return 0


def _is_plain(text: bytes, quotes: Positions, delimiter: str) -> bool:
    if b"\0" in text or text.startswith(BYTE_ORDER_MARK):  # Arrow would skip a mark at the start of a block
        return False
    if not len(quotes):
        return True
    characters = np.frombuffer(b"\n" + text + b"\n", np.uint8)  # of position p in `text` at p + 1
    borders = np.frombuffer(f'{delimiter}\r\n"'.encode(), np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before, after = characters[opening], characters[closing + 2]
    within = np.r_[False, opening[1:] == closing[:-1] + 1]  # the second of two quotes in a value
    return bool((np.isin(before, borders[:-1]) | within).all() and np.isin(after, borders).all())
