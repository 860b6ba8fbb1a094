"""Hashes of examples by their content, stable across machines and file layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.examples import Examples
from mtlcli.data.formats.cells import BLOCK, Cells
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.text_rows import TextRows

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
LONG = 64  # characters; longer texts are hashed one by one, because an array pads all texts to the longest
MAPS = 64  # maps hashed at once
CHUNK = 2**15  # words hashed at once, so that they stay in the cache
MISSING = np.uint64(0x9E3779B97F4A7C15)  # the hash of a missing text
NUMBER = np.uint64(0xA0761D6478BD642F)  # separates the hashes of numbers from those of texts
EXACT = 2.0**53  # float64 doesn't represent every integer from here on


def hash_texts(texts: Sequence[str | None]) -> Hashes:
    """Hash texts.

    Args:
        texts: N texts; None is a missing text, which differs from every other.

    Returns:
        uint64 [N].
    """
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
    """Hash the bytes of each example.

    Args:
        values: tensor in memory, [N, …].

    Returns:
        uint64 [N].
    """
    array = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().contiguous().numpy()
    return _hash_bytes(array)


def hash_examples(examples: Examples) -> Hashes | None:
    """Hash inputs, targets and weights of examples. Maps that are read lazily are left out.

    Args:
        examples: N examples.

    Returns:
        uint64 [N], or None if the inputs aren't in memory.
    """
    if not isinstance(examples.inputs, Tensor | TextRows):
        return None
    rows = slice(None) if examples.rows is None else examples.rows
    tensors = {f"target {name}": target for name, target in examples.targets.items()}
    if examples.weights is not None:
        tensors["weights"] = examples.weights
    hashes = {name: hash_rows(tensor[rows]) for name, tensor in tensors.items()}
    if examples.maps:
        hashes |= hash_tensor_maps(examples)
    inputs = examples.inputs
    own = hash_rows(inputs[rows]) if isinstance(inputs, Tensor) else hash_inputs(inputs)[rows]
    return hash_named({"inputs": own, **hashes})


def hash_tensor_maps(examples: Examples) -> dict[str, Hashes]:
    """Hash the maps of each example that are in memory, without a copy of all of them.

    Args:
        examples: N examples.

    Returns:
        Name of a component, see `hash_named` → uint64 [N].
    """
    in_memory = [name for name, maps in examples.maps.items() if isinstance(maps, Tensor)]
    return {
        f"map {name}": np.concatenate([hash_rows(maps) for maps in examples.iterate_maps(name, MAPS)])
        for name in in_memory
    }


def hash_inputs(inputs: TextRows) -> Hashes:
    """Hash the texts of each example.

    Args:
        inputs: the texts of N examples.

    Returns:
        uint64 [N].
    """
    return np.concatenate([
        hash_named({f"text {at}": hash_texts(texts) for at, texts in enumerate(zip(*block, strict=True))})
        for block in inputs.blocks()
    ])  # fmt: skip


def hash_named(parts: Mapping[str, Hashes]) -> Hashes:
    """Combine hashes of several components of each example, independent of the order of the components.

    Args:
        parts: name of a component → uint64 [N].

    Returns:
        uint64 [N].
    """
    total = np.zeros_like(next(iter(parts.values())))
    for name, hashes in parts.items():
        total += mix_bits(hashes ^ hash_texts([name]))
    return mix_bits(total)


def hash_cells(cells: Cells, notation: Notation) -> Hashes:
    """Hash values of a column, numbers by value in any spelling (`1`, `1.0`) and others as text.

    A row keeps its hash when another program saves the table.

    Args:
        cells: cells of a column.
        notation: notation of the numbers.

    Returns:
        uint64 [positions].
    """
    numbers, _ = cells.numbers(notation)
    exact = np.abs(numbers) < EXACT  # False for NaN: not a number
    hashes: Hashes = mix_bits((numbers + 0.0).view(np.uint64) ^ NUMBER)  # -0.0 + 0.0 is 0.0
    inexact = np.flatnonzero(~exact)
    for start in range(0, len(inexact), BLOCK):
        others = inexact[start : start + BLOCK]
        large = ~np.isnan(numbers[others])
        hashes[others] = hash_texts([
            notation.canonical(text) if number and text is not None else text
            for text, number in zip(cells.texts(others), large.tolist(), strict=True)
        ])  # fmt: skip
    return hashes


def hash_table(table: Table, columns: Iterable[str], notation: Notation) -> Hashes:
    """Hash the cells of each row, independent of the order of the columns.

    Args:
        table: the table.
        columns: names of the columns to hash.
        notation: notation of the numbers.

    Returns:
        uint64 [N].
    """
    total: Hashes = np.zeros(len(table), np.uint64)
    for name in columns:
        cells = table.columns[name]
        hashes = mix_bits(hash_cells(cells, notation) ^ hash_texts([name]))
        for start in range(0, len(total), BLOCK):
            rows = slice(start, start + BLOCK)
            total[rows] += cells.spread(hashes, rows)
    return mix_bits(total)


def mix_bits(values: Hashes) -> Hashes:
    """Permute 64-bit integers so that every output bit depends on every input bit.

    This is the last step of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
    2014, figure 17.

    Args:
        values: uint64, of any shape.

    Returns:
        uint64 of the same shape.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_bytes(array: np.ndarray[Any, Any]) -> Hashes:
    """Hash the bytes of each row: the sum of its 8-byte words, each mixed with its position; zero words are skipped."""
    if not array.size:
        return np.zeros(len(array), np.uint64)
    rows = array.reshape(len(array), -1).view(np.uint8)
    amount, size = rows.shape
    words = -(-size // 8)
    places = mix_bits(np.arange(1, words + 1, dtype=np.uint64))
    hashes: Hashes = np.empty(amount, np.uint64)
    step = max(1, CHUNK // words)
    for start in range(0, amount, step):
        block = rows[start : start + step]
        if size % 8:
            block = np.pad(block, ((0, 0), (0, 8 * words - size)))
        values = np.ascontiguousarray(block).view("<u8").astype(np.uint64, copy=False)
        hashes[start : start + step] = np.where(values == 0, np.uint64(0), mix_bits(values ^ places)).sum(1)
    return mix_bits(hashes)
