"""Records of a checkpoint's data, which reveal changes and let split membership be reproduced."""

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

from mtlcli.data.splitting import Hashes
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import PLAIN, Split

SAMPLE = 256  # hashes of a split that are kept
DIGITS = 16  # of a hash
Hex = Annotated[str, Field(pattern=f"^[0-9a-f]{{{DIGITS}}}$")]
Rule = Literal["content", "position"]


@dataclass(frozen=True)
class Fingerprint:
    """The examples of a split, in short.

    n: how many. content: the sum of their hashes, whatever their order. order: a hash of their hashes in order.
    sample: the smallest hashes, at most SAMPLE of them, one after the other. Of examples that can't be hashed only n.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    n: Annotated[int, Field(ge=0)]
    content: Hex = "0" * DIGITS
    order: Hex = "0" * DIGITS
    sample: Annotated[str, Field(pattern=f"^([0-9a-f]{{{DIGITS}}}){{0,{SAMPLE}}}$")] = ""

    @classmethod
    def of(cls, hashes: Hashes) -> Fingerprint:
        """The fingerprint of examples with these hashes."""
        smallest = np.sort(np.partition(hashes, SAMPLE)[:SAMPLE] if len(hashes) > SAMPLE else hashes)
        return cls(len(hashes), _to_hex(hashes.sum()), _hash_order(hashes), "".join(map(_to_hex, smallest)))

    def whole(self) -> tuple[int, str]:
        """Number and content of the examples, to be compared with `DataRecord.whole`."""
        return self.n, self.content

    def changes(self, now: Hashes) -> str | None:
        """Describe how the examples with the hashes `now` differ from these; None where they are the same."""
        there = Fingerprint.of(now)
        if there == self:
            return None
        if there.content == self.content and there.n == self.n:
            return f"the same {self.n:,} examples stand in another order"
        if there.n > self.n and _hash_order(now[: self.n]) == self.order:
            return f"{_count_examples(there.n - self.n)} added at the end of {self.n:,}"
        gone = self.lost(now)
        if self.n <= SAMPLE:
            added = there.n - self.n + gone
            parts = [f"{_count_examples(gone)} removed"] * (gone > 0) + [f"{_count_examples(added)} added"] * (
                added > 0
            )
            return f"{' and '.join(parts)}, a changed one counting as both; {self.n:,} before, {there.n:,} now"
        share = f"about {gone / SAMPLE:.0%} of them removed or changed" if gone else "some of them added or changed"
        return f"{self.n:,} examples before, {there.n:,} now, {share}"

    def lost(self, now: Hashes) -> int:
        """Number of hashes of the sample that are not among `now`."""
        before = Counter(int(self.sample[at : at + DIGITS], 16) for at in range(0, len(self.sample), DIGITS))
        wanted = np.array(sorted(before), np.uint64)
        here = Counter(now[np.isin(now, wanted)].tolist())
        return (before - here).total()


@dataclass(frozen=True)
class DataRecord:
    """The data a model was trained on.

    rule: what the membership in drawn splits is a function of: `content` (see `splitting`) or `position`.
    columns: of a table, those whose cells are the content; None of anything else.
    kept: split that was drawn → the keys left out of it for the sake of their classes.
    splits: the fingerprints, by the data's own splits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    rule: Rule
    columns: Annotated[tuple[str, ...], Field(max_length=2**17)] | None = None
    kept: dict[Split, Annotated[tuple[Hex, ...], Field(max_length=2**20)]] = field(default_factory=dict)
    splits: dict[Split, Fingerprint] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, for a checkpoint."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, plain: Any, where: str) -> DataRecord:
        """The record that `to_dict` gave. ConfigError, naming the key below `where`, for anything else."""
        try:
            return _adapter().validate_json(json.dumps(plain))
        except (TypeError, ValueError, RecursionError) as error:
            first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
            place = ".".join([where, *map(str, first["loc"])]) if first else where
            raise ConfigError(Problem("is not what mtl records of its data", place)) from error

    def kept_keys(self, split: str) -> frozenset[int]:
        """The keys left out of a drawn split for the sake of their classes."""
        return frozenset(int(key, 16) for key in self.kept.get(split, ()))

    def short(self) -> dict[str, dict[str, Any]]:
        """Split → `n`, `content` and `order`, for a summary."""
        return {split: {"n": p.n, "content": p.content, "order": p.order} for split, p in self.splits.items()}

    def whole(self) -> tuple[int, str]:
        """Number and content of the examples of all splits together."""
        total = sum(int(one.content, 16) for one in self.splits.values()) % 2**64
        return sum(one.n for one in self.splits.values()), f"{total:0{DIGITS}x}"


def to_hex_keys(keys: Mapping[str, frozenset[int]]) -> dict[str, tuple[str, ...]]:
    """Split → keys, as `DataRecord.kept` has them."""
    return {split: tuple(map(_to_hex, sorted(found))) for split, found in keys.items() if found}


@cache
def _adapter() -> TypeAdapter[DataRecord]:
    return TypeAdapter(DataRecord)


def _hash_order(hashes: Hashes) -> str:
    return blake2b(hashes.astype("<u8").tobytes(), digest_size=DIGITS // 2).hexdigest()


def _to_hex(value: Any) -> str:
    return f"{int(value):0{DIGITS}x}"


def _count_examples(n: int) -> str:
    return f"{n:,} example was" if n == 1 else f"{n:,} examples were"
