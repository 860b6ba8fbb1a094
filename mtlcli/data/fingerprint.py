"""Records of a checkpoint's data, to detect changes and to reproduce the membership in drawn splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mtlcli.data.content_hash import Hashes
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import PLAIN, Split

SAMPLE = 256  # hashes recorded per split
DIGITS = 16  # hexadecimal digits of a hash
Hex = Annotated[str, Field(pattern=f"^[0-9a-f]{{{DIGITS}}}$")]
Rule = Literal["content", "position"]


@dataclass(frozen=True)
class Fingerprint:
    """Summary of the examples of a split.

    Attributes:
        n: number of examples.
        content: sum of the examples' hashes, independent of their order; zeros if the examples can't be hashed.
        order: hash of the examples' hashes in order; zeros if the examples can't be hashed.
        sample: the smallest hashes, at most SAMPLE of them, concatenated; empty if the examples can't be hashed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    n: Annotated[int, Field(ge=0)]
    content: Hex = "0" * DIGITS
    order: Hex = "0" * DIGITS
    sample: Annotated[str, Field(pattern=f"^([0-9a-f]{{{DIGITS}}}){{0,{SAMPLE}}}$")] = ""

    @classmethod
    def of(cls, hashes: Hashes) -> Fingerprint:
        """Compute the fingerprint of examples.

        Args:
            hashes: uint64 [N].

        Returns:
            The fingerprint.
        """
        smallest = np.sort(np.partition(hashes, SAMPLE)[:SAMPLE] if len(hashes) > SAMPLE else hashes)
        return cls(len(hashes), _to_hex(hashes.sum()), _hash_order(hashes), "".join(map(_to_hex, smallest)))

    def whole(self) -> tuple[int, str]:
        """Return number and content of the examples, to compare with `DataRecord.whole`."""
        return self.n, self.content

    def changes(self, now: Hashes) -> str | None:
        """Describe how the current examples differ from the recorded ones.

        Args:
            now: hashes of the current examples, uint64 [N].

        Returns:
            The difference in words, or None if the examples are the same.
        """
        current = Fingerprint.of(now)
        if current == self:
            return None
        if current.content == self.content and current.n == self.n:
            return f"the same {self.n:,} examples are in another order"
        if current.n > self.n and _hash_order(now[: self.n]) == self.order:
            return f"{_count_examples(current.n - self.n)} added at the end of {self.n:,}"
        gone = self.lost(now)
        if self.n <= SAMPLE:
            added = current.n - self.n + gone
            changes = [f"{_count_examples(n)} {what}" for n, what in ((gone, "removed"), (added, "added")) if n > 0]
            return f"{' and '.join(changes)} (a changed one counts as both); {self.n:,} before, {current.n:,} now"
        share = f"about {gone / SAMPLE:.0%} of them removed or changed" if gone else "some of them added or changed"
        return f"{self.n:,} examples before, {current.n:,} now, {share}"

    def lost(self, now: Hashes) -> int:
        """Count the hashes of the sample that are absent from the current ones.

        Args:
            now: hashes of the current examples, uint64 [N].

        Returns:
            Their number.
        """
        before = Counter(int(self.sample[at : at + DIGITS], 16) for at in range(0, len(self.sample), DIGITS))
        sampled = np.array(sorted(before), np.uint64)
        current = Counter(now[np.isin(now, sampled)].tolist())
        return (before - current).total()


@dataclass(frozen=True)
class DataRecord:
    """Record of the data a model was trained on.

    Attributes:
        rule: basis of the membership in drawn splits: `content` (see `splitting`) or `position`.
        columns: columns of a table whose cells were hashed; None for other datasets.
        kept: drawn split → keys excluded from it so that every class keeps an example.
        splits: fingerprints of the data's own splits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    rule: Rule
    columns: Annotated[tuple[str, ...], Field(max_length=2**17)] | None = None
    kept: dict[Split, Annotated[tuple[Hex, ...], Field(max_length=2**20)]] = field(default_factory=dict)
    splits: dict[Split, Fingerprint] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain dicts, lists, numbers and strings, for a checkpoint."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, plain: Any, where: str) -> DataRecord:
        """Restore a record from `to_dict`.

        Args:
            plain: content of a checkpoint.
            where: key path of it, for messages.

        Returns:
            The record.

        Raises:
            ConfigError: `plain` is not a valid record; names the invalid key.
        """
        try:
            return _adapter().validate_json(json.dumps(plain))
        except (TypeError, ValueError, RecursionError) as error:
            first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
            place = ".".join([where, *map(str, first["loc"])]) if first else where
            raise ConfigError(Problem("is not a valid record of a dataset", place)) from error

    def kept_keys(self, split: str) -> frozenset[int]:
        """Return the keys excluded from a drawn split so that every class keeps an example."""
        return frozenset(int(key, 16) for key in self.kept.get(split, ()))

    def short(self) -> dict[str, dict[str, Any]]:
        """Return split → `n`, `content` and `order`, for a summary."""
        return {split: {"n": p.n, "content": p.content, "order": p.order} for split, p in self.splits.items()}

    def whole(self) -> tuple[int, str]:
        """Return number and content of the examples of all splits together."""
        total = sum(int(split.content, 16) for split in self.splits.values()) % 2**64
        return sum(split.n for split in self.splits.values()), f"{total:0{DIGITS}x}"


def to_hex_keys(keys: Mapping[str, frozenset[int]]) -> dict[str, tuple[str, ...]]:
    """Convert keys of each split to the form of `DataRecord.kept`.

    Args:
        keys: split → keys.

    Returns:
        split → keys in hexadecimal, for splits that have some.
    """
    return {split: tuple(map(_to_hex, sorted(excluded))) for split, excluded in keys.items() if excluded}


@cache
def _adapter() -> TypeAdapter[DataRecord]:
    return TypeAdapter(DataRecord)


def _hash_order(hashes: Hashes) -> str:
    return blake2b(hashes.astype("<u8").tobytes(), digest_size=DIGITS // 2).hexdigest()


def _to_hex(value: Any) -> str:
    return f"{int(value):0{DIGITS}x}"


def _count_examples(n: int) -> str:
    return f"{n:,} example was" if n == 1 else f"{n:,} examples were"
