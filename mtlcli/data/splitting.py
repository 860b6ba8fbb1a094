"""Random splits whose membership depends on an example's content, not on its position.

An example belongs to the drawn split if a hash of its key and the seed is below the split's share. So an existing
example keeps its split when others are added, removed or reordered, and the split has its share of the examples only on
average. Two safeguards adjust this: every class keeps an example outside the drawn split, and neither side is empty.
The first one depends on the other examples, so the keys that it excludes are recorded in checkpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.content_hash import Hashes, mix_bits
from mtlcli.data.examples import Examples
from mtlcli.data.samplers.base import stable_seed
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX

Codes = np.ndarray[tuple[int], np.dtype[np.int64]]  # [N], class of each example; -1 for a missing label
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
MAX_COPIES = 10  # identical examples that share a split
MAX_TRIED_KEYS = 1000  # keys tried for a split that would be empty


@dataclass(frozen=True)
class Draw:
    """Result of drawing a split.

    Attributes:
        chosen: bool [N], the examples in the drawn split.
        kept: keys excluded from it so that every class keeps an example.
    """

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
    """Draw a share of the examples. Examples with equal keys are drawn together.

    Unless the share is 0, at least one example is drawn if there are two keys and no class loses its last example by
    it; unless the share is 1, at least one is left.

    Args:
        keys: uint64 [N].
        share: expected share of the drawn examples, in [0, 1].
        salt: seed of the draw; each different salt gives an independent draw.
        classes: class codes [N] of each target; every class keeps an example outside the drawn split: if all were
            drawn, those of the key with the largest hash are not.
        kept: keys that are never drawn.
        needed: draw all examples of a class rather than none at all.

    Returns:
        The drawn examples, and the keys excluded for the classes' sake.
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


# Draw the examples of the key with the smallest hash that doesn't take all of a class; if there is no such key and the
# draw is `needed`, those of the smallest hash. Never draws all examples.
def _draw_smallest(keys: Hashes, numbers: Hashes, classes: Sequence[Codes], needed: bool) -> Mask:
    totals = [np.bincount(codes[codes >= 0], minlength=1) for codes in classes]
    first: Mask | None = None
    distinct, at = np.unique(keys, return_index=True)
    for key in distinct[numbers[at].argsort()][:MAX_TRIED_KEYS]:
        chosen: Mask = keys == key
        if chosen.all():
            continue
        first = chosen if first is None else first
        taken = (codes[chosen & (codes >= 0)] for codes in classes)
        if not any((np.bincount(t, minlength=len(n)) == n)[t].any() for t, n in zip(taken, totals, strict=True)):
            return chosen
    return first if needed and first is not None else np.zeros(len(keys), bool)


def add_val_split(own: tuple[str, ...], val: float) -> tuple[str, ...]:
    """Add `val` to a dataset's own splits if a share of `train` is drawn for it.

    Args:
        own: splits that the data itself has.
        val: share of the training examples that becomes `val`.

    Returns:
        The splits that the dataset offers.
    """
    return own if "val" in own or "train" not in own or val == 0 else ("train", "val", *own[1:])


def draw_val(train: Examples, share: float, seed: int, keys: Hashes | None, excluded: Collection[int] = ()) -> Draw:
    """Draw the split `val` from the training examples.

    Args:
        train: the training examples.
        share: share of the examples to draw.
        seed: seed of the draw.
        keys: keys of the examples, uint64 [N]; None to draw by position.
        excluded: keys that are never drawn.

    Returns:
        The drawn examples.

    Raises:
        ConfigError: no example would be drawn, or none would be left.
    """
    salt, amount = ("val", seed), len(train)
    if keys is None:
        drawn = Draw(draw_by_position(amount, max(1, round(share * amount)), salt))
    else:
        labels = map(train.labels, train.targets)
        classes = [codes for label in labels if (codes := to_class_codes(label)) is not None]
        drawn = draw(keys, share, salt, classes, excluded, needed=True)
    if drawn.chosen.all() or not drawn.chosen.any():
        alike = ": all are identical or in one group" if amount > 1 and keys is not None else ""
        raise ConfigError(f"`val: {share}` of {amount} training examples leaves none to train on{alike}")
    return drawn


def draw_by_position(amount: int, size: int, salt: tuple[int | str, ...]) -> Mask:
    """Draw examples by their positions, for published data that never changes.

    Args:
        amount: number of examples.
        size: number of examples to draw.
        salt: seed of the draw.

    Returns:
        bool [amount], the drawn examples.
    """
    chosen = np.zeros(amount, bool)
    chosen[np.random.default_rng(stable_seed(*salt)).permutation(amount)[:size]] = True
    return chosen


def group_copies(hashes: Hashes) -> Hashes:
    """Give identical examples a common key: up to MAX_COPIES of them, and each further one its own.

    A few identical examples in two splits would leak from training into evaluation. Many identical rows of a table with
    few categories are different cases that look alike, and belong in all splits.

    Args:
        hashes: content hashes, uint64 [N].

    Returns:
        Keys, uint64 [N].
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    own = np.flatnonzero(ordered[MAX_COPIES:] == ordered[:-MAX_COPIES]) + MAX_COPIES
    further = own - np.searchsorted(ordered, ordered[own]) - (MAX_COPIES - 1)
    keys = hashes.copy()
    keys[order[own]] = mix_bits(ordered[own] + mix_bits(further.astype(np.uint64)))
    return keys


def to_class_codes(target: Tensor) -> Codes | None:
    """Convert a target's labels to class codes.

    Args:
        target: labels as `TargetSpec` defines them.

    Returns:
        int64 [N] with -1 for missing labels, or None for a target without classes (real or multilabel).
    """
    if target.ndim != 1:
        return None
    if not target.is_floating_point():
        return torch.where(target == IGNORE_INDEX, -1, target).numpy().astype(np.int64)
    codes = torch.where(target.isnan(), -1.0, target)
    return codes.numpy().astype(np.int64) if torch.isin(codes, torch.tensor([-1.0, 0.0, 1.0])).all() else None


def _array(keys: Collection[int]) -> Hashes:
    return np.array(sorted(keys), np.uint64)
