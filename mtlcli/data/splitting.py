"""Membership of examples in drawn splits: a function of their content, never of their position.

An example belongs to the drawn split where a hash of its key and the seed is below the split's share. So an example
that is there already keeps its split whatever is added, removed or reordered, and the split's size is its share only on
average. Two guards follow; what the first one keeps is recorded in checkpoints, for it depends on the other examples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.hashing import Hashes, mixed
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
    numbers = mixed(keys ^ np.uint64(stable_seed(*salt)))
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
        chosen = _smallest(keys, numbers, classes, needed)
    return Draw(chosen, frozenset(left_out))


def _smallest(keys: Hashes, numbers: Hashes, classes: Sequence[Codes], needed: bool) -> Mask:
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


def with_copies(hashes: Hashes) -> Hashes:
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
    keys[order[own]] = mixed(ordered[own] + mixed(further[own].astype(np.uint64)))
    return keys


def class_codes(target: Tensor) -> Codes | None:
    """The classes of a target's labels; None of a target without classes: a real one, or several labels at once."""
    if target.ndim != 1:
        return None
    if not target.is_floating_point():
        return torch.where(target == IGNORE_INDEX, -1, target).numpy().astype(np.int64)
    codes = torch.where(target.isnan(), -1.0, target)
    return codes.numpy().astype(np.int64) if torch.isin(codes, torch.tensor([-1.0, 0.0, 1.0])).all() else None


def _array(keys: Collection[int]) -> Hashes:
    return np.array(sorted(keys), np.uint64)
