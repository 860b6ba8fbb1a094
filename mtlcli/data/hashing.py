"""Hashes of examples: 64 bits each, of what an example is, the same in every process and on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.numerals import Notation
from mtlcli.data.table import Table

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
LONG = 64  # characters; a longer text is hashed by itself, for texts are padded to the longest
CHUNK = 2**15  # words hashed at once, so that they stay in the cache
MISSING = np.uint64(0x9E3779B97F4A7C15)  # the hash of a missing text
NUMBER = np.uint64(0xA0761D6478BD642F)  # sets the hashes of numbers apart from those of texts
EXACT = 2.0**53  # from which float64 doesn't hold every whole number


def hash_texts(texts: Sequence[str | None]) -> Hashes:
    """Hash each text; a missing one (None) differs from every text. uint64 [N]."""
    short = np.array([text if text is not None and len(text) <= LONG else "" for text in texts], np.str_)
    hashes = _hash_bytes(short)
    for at, text in enumerate(texts):
        if text is None:
            hashes[at] = MISSING
        elif len(text) > LONG:
            digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            hashes[at] = int.from_bytes(digest, "little")
    return hashes


def hash_rows(values: Tensor) -> Hashes:
    """Hash the bytes of each example of a tensor in memory [N, …]: uint64 [N]."""
    array = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().contiguous().numpy()
    return _hash_bytes(array)


def hash_named(parts: Mapping[str, Hashes]) -> Hashes:
    """Hash several parts of each example, each part under a name, whatever their order. uint64 [N]."""
    total = np.zeros_like(next(iter(parts.values())))
    for name, hashes in parts.items():
        total += mixed(hashes ^ hash_texts([name]))
    return mixed(total)


def hash_cells(values: Sequence[str | None], notation: Notation) -> Hashes:
    """Hash each value of a column: a number by what it is, in any spelling (`1`, `1.0`); others as texts. uint64 [N].

    So a row stays the same when another program saves the table.
    """
    numbers, _ = notation.numbers(values)
    exact = np.abs(numbers) < EXACT  # False for NaN, what is no number
    hashes: Hashes = mixed((numbers + 0.0).view(np.uint64) ^ NUMBER)  # -0.0 + 0.0 is 0.0
    if len(others := np.flatnonzero(~exact)):
        large = ~np.isnan(numbers[others])
        texts = [values[int(at)] for at in others]
        hashes[others] = hash_texts([
            notation.canonical(text) if number and text is not None else text
            for text, number in zip(texts, large.tolist(), strict=True)
        ])  # fmt: skip
    return hashes


def hash_table(table: Table, columns: Iterable[str], notation: Notation) -> Hashes:
    """Hash the cells of each row in `columns`, whatever the columns' order: uint64 [N]."""
    total: Hashes = np.zeros(len(table), np.uint64)
    for name in columns:
        cells = table.columns[name]
        total += mixed(hash_cells(cells.values, notation) ^ hash_texts([name]))[cells.index]
    return mixed(total)


def mixed(values: Hashes) -> Hashes:
    """Permute 64-bit integers so that every bit of the result depends on every bit given: SplitMix64's last step.

    From Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), figure 17.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_bytes(array: np.ndarray[Any, Any]) -> Hashes:
    """Hash the bytes of each row: the sum of its words of 8 bytes, each mixed with its position, without the zeros."""
    if not array.size:
        return np.zeros(len(array), np.uint64)
    rows = array.reshape(len(array), -1).view(np.uint8)
    amount, size = rows.shape
    words = -(-size // 8)
    places = mixed(np.arange(1, words + 1, dtype=np.uint64))
    hashes: Hashes = np.empty(amount, np.uint64)
    step = max(1, CHUNK // words)
    for start in range(0, amount, step):
        part = rows[start : start + step]
        if size % 8:
            part = np.pad(part, ((0, 0), (0, 8 * words - size)))
        values = np.ascontiguousarray(part).view("<u8").astype(np.uint64, copy=False)
        hashes[start : start + step] = np.where(values == 0, np.uint64(0), mixed(values ^ places)).sum(1)
    return mixed(hashes)
