"""Membership of examples in drawn splits: a function of their content, never of their position.

An example belongs to the drawn split where a hash of its key and the seed is below the split's share. So an example
that is there already keeps its split whatever is added, removed or reordered, and the split's size is its share only on
average. Two guards follow; what the first one keeps is recorded in checkpoints, for it depends on the other examples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.csv_reader import Table
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.shuffling import stable_seed
from mtlcli.specs import IGNORE_INDEX

Codes = np.ndarray[tuple[int], np.dtype[np.int64]]  # [N], of each example's class; -1 for a missing label
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
COPIES = 10  # identical examples that share a split
TRIED = 1000  # keys that are tried for a split that would be empty


@dataclass(frozen=True)
class Draw:
    """chosen: [N], the examples of the drawn split. kept: the keys left out of it for the sake of their classes."""

    chosen: Mask
    kept: frozenset[int] = frozenset()


def draw(
    keys: Hashes,
    share: float,
    salt: tuple[int | str, ...],
    classes: Sequence[Codes] = (),
    kept: Collection[int] = (),
    needed: bool = False,
) -> Draw:
    """Draw a `share` of the examples; those of equal keys go together.

    classes: each class keeps an example that isn't drawn: if all are, those of the key with the largest hash stay.
    kept: keys that aren't drawn in any case. needed: draw a class's only examples rather than nothing.
    Unless the share is 0, an example is drawn where there are two keys and no class loses its last one by it; unless it
    is 1, one is left.
    """
    if share <= 0 or share >= 1:
        return Draw(np.full(len(keys), share >= 1))
    numbers = mix_bits(keys ^ np.uint64(stable_seed(*salt)))
    chosen: Mask = (numbers < np.uint64(int(share * 2**64))) & ~np.isin(keys, _array(kept))
    left_out: set[int] = set()
    for codes in classes:
        for lost in np.setdiff1d(codes[chosen], [-1, *np.unique(codes[~chosen])]):
            rows = np.flatnonzero(codes == lost)
            if chosen[rows].all():
                key = keys[rows[numbers[rows].argmax()]]
                chosen &= keys != key
                left_out.add(int(key))
    if len(keys) and chosen.all():
        chosen &= keys != keys[numbers.argmax()]
    if not chosen.any():
        chosen = _draw_smallest(keys, numbers, classes, needed)
    return Draw(chosen, frozenset(left_out))


def _draw_smallest(keys: Hashes, numbers: Hashes, classes: Sequence[Codes], needed: bool) -> Mask:
    """The examples of the key with the smallest hash that can be drawn without taking all of a class, if there is one.

    needed: else those of the very smallest. Never all examples.
    """
    totals = [np.bincount(codes[codes >= 0], minlength=1) for codes in classes]
    first: Mask | None = None
    distinct, at = np.unique(keys, return_index=True)
    for key in distinct[numbers[at].argsort()][:TRIED]:
        chosen: Mask = keys == key
        if chosen.all():
            continue
        first = chosen if first is None else first
        taken = (codes[chosen & (codes >= 0)] for codes in classes)
        if not any((np.bincount(t, minlength=len(n)) == n)[t].any() for t, n in zip(taken, totals, strict=True)):
            return chosen
    return first if needed and first is not None else np.zeros(len(keys), bool)


def draw_by_position(amount: int, size: int, salt: tuple[int | str, ...]) -> Mask:
    """Draw `size` of `amount` examples by their positions: [amount]. For published data, which never changes."""
    chosen = np.zeros(amount, bool)
    chosen[np.random.default_rng(stable_seed(*salt)).permutation(amount)[:size]] = True
    return chosen


def group_copies(hashes: Hashes) -> Hashes:
    """Keys of examples that may be identical: up to COPIES of them share a key, every further one has its own.

    A few identical examples in two splits would be known to the model that is tested on them. Many, in a table of a few
    categories, are different cases that look alike, and belong in all splits.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(ordered)])
    further = np.arange(len(ordered)) - np.repeat(starts, lengths) - (COPIES - 1)
    keys = hashes.copy()
    own = further > 0
    keys[order[own]] = mix_bits(ordered[own] + mix_bits(further[own].astype(np.uint64)))
    return keys


def to_class_codes(target: Tensor) -> Codes | None:
    """The classes of a target's labels; None of a target without classes: a real one, or several labels at once."""
    if target.ndim != 1:
        return None
    if not target.is_floating_point():
        return torch.where(target == IGNORE_INDEX, -1, target).numpy().astype(np.int64)
    codes = torch.where(target.isnan(), -1.0, target)
    return codes.numpy().astype(np.int64) if torch.isin(codes, torch.tensor([-1.0, 0.0, 1.0])).all() else None


def _array(keys: Collection[int]) -> Hashes:
    return np.array(sorted(keys), np.uint64)


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
        total += mix_bits(hashes ^ hash_texts([name]))
    return mix_bits(total)


def hash_cells(values: Sequence[str | None], notation: Notation) -> Hashes:
    """Hash each value of a column: a number by what it is, in any spelling (`1`, `1.0`); others as texts. uint64 [N].

    So a row stays the same when another program saves the table.
    """
    numbers, _ = notation.numbers(values)
    exact = np.abs(numbers) < EXACT  # False for NaN, what is no number
    hashes: Hashes = mix_bits((numbers + 0.0).view(np.uint64) ^ NUMBER)  # -0.0 + 0.0 is 0.0
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
        total += mix_bits(hash_cells(cells.values, notation) ^ hash_texts([name]))[cells.index]
    return mix_bits(total)


def mix_bits(values: Hashes) -> Hashes:
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
    places = mix_bits(np.arange(1, words + 1, dtype=np.uint64))
    hashes: Hashes = np.empty(amount, np.uint64)
    step = max(1, CHUNK // words)
    for start in range(0, amount, step):
        part = rows[start : start + step]
        if size % 8:
            part = np.pad(part, ((0, 0), (0, 8 * words - size)))
        values = np.ascontiguousarray(part).view("<u8").astype(np.uint64, copy=False)
        hashes[start : start + step] = np.where(values == 0, np.uint64(0), mix_bits(values ^ places)).sum(1)
    return mix_bits(hashes)
