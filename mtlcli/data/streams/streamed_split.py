"""Examples of a split of a streamed data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.example_weights import LabelWeights
from mtlcli.data.examples import DeriveLabels, Examples, StreamedExamples
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.placement import Placement
from mtlcli.data.streams.pieces import Piece, PieceMaker
from mtlcli.data.streams.row_stream import PassRows, SplitRows
from mtlcli.data.streams.set_rows import INPUTS, TARGET, WEIGHTS
from mtlcli.data.streams.stream_loader import StreamLoader


@dataclass(frozen=True)
class StreamedInputs:
    """Inputs of a split, which is read from its beginning up to the wanted row.

    Attributes:
        rows: rows of the split.
        make: converts rows to examples.
    """

    rows: SplitRows
    make: PieceMaker

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        reader = PassRows(self.rows, 0, ())
        if row:
            reader.take(row)
        return self.make.convert(reader.take(1))[INPUTS][0]


@dataclass(frozen=True)
class StreamedSplit(StreamedExamples):
    """Examples of a split that are read in sequence, and shuffled by a buffer for training.

    Args:
        stream: rows of the split.
        buffer: number of rows in the shuffle buffer.
        make: converts rows to examples.
    """

    stream: SplitRows = field(kw_only=True)
    buffer: int = field(kw_only=True)
    make: PieceMaker = field(kw_only=True)

    @classmethod
    def of(cls, stream: SplitRows, buffer: int, make: PieceMaker) -> StreamedSplit:
        """Return the examples of a split."""
        return cls(StreamedInputs(stream, make), {}, stream=stream, buffer=buffer, make=make)

    def labels(self, target: str) -> Tensor:
        """Read all labels of a target, which takes a pass over the data.

        Args:
            target: name of the target.

        Returns:
            [n] or [n, size].
        """
        return torch.cat([piece[TARGET + target] for piece in self._labels()])

    def sample_weights(self) -> Tensor | None:
        """Read the weights of all examples, which takes a pass over the data; None for equal weights."""
        if WEIGHTS not in next(self._labels()):
            return None
        return torch.cat([piece[WEIGHTS] for piece in self._labels()])

    def copy_rows(self, rows: Tensor) -> Examples:
        """Copy some examples to memory, see `StreamedExamples.copy_rows`."""
        size, shards = len(self.stream), np.arange(len(self.stream.sizes))
        blocks = list(self.stream.arrivals(shards, rows.numpy(), size))
        of_texts = self.make.decode is None and blocks[0][INPUTS].dtype == object
        pieces = [self.make.convert_labels(block) if of_texts else self.make.convert(block) for block in blocks]
        whole = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        targets = {name.removeprefix(TARGET): labels for name, labels in whole.items() if name.startswith(TARGET)}
        if not of_texts:
            return Examples(whole[INPUTS], targets, weights=whole.get(WEIGHTS))
        texts = [row for block in blocks for row in block[INPUTS].tolist()]
        inputs = (
            TextRows(list(zip(*texts, strict=True))) if self.make.tokenize is None else self.make.convert_texts(texts)
        )
        return Examples(inputs, targets, weights=whole.get(WEIGHTS))

    def first_texts(self, amount: int) -> TextRows:
        """Read the first texts of the split, see `StreamedExamples.first_texts`."""
        block = PassRows(self.stream, 0, ()).take(min(amount, len(self.stream)))
        return TextRows(list(zip(*block[INPUTS].tolist(), strict=True)))

    def tokenized(self, tokenize: Callable[[TextRows], TokenRows]) -> StreamedSplit:
        """Return the examples with tokens as inputs, see `StreamedExamples.tokenized`."""
        return StreamedSplit.of(self.stream, self.buffer, replace(self.make, tokenize=tokenize))

    def with_labels(self, derived: Mapping[str, DeriveLabels]) -> StreamedSplit:
        """Return the examples with further targets, see `Examples.with_labels`."""
        return replace(self, make=replace(self.make, derived={**self.make.derived, **derived}))

    def make_loader(
        self,
        alias: str,
        tasks: Mapping[str, tuple[str, str]],
        seed: int,
        placement: Placement,
        augment: Sequence[str | dict[str, Any]],
        class_weights: Mapping[str, LabelWeights] | None,
    ) -> StreamLoader:
        """Make the loader of the examples, see `StreamedExamples.make_loader`."""
        targets = {task: target for task, (source, target) in tasks.items() if source == alias}
        weights = {task: of_classes for task, of_classes in (class_weights or {}).items() if task in targets}
        return StreamLoader(alias, self.stream, self.buffer, self.make, targets, seed, placement, augment, weights)

    def _labels(self) -> Iterator[Piece]:
        for block in self.stream.arrivals(np.arange(len(self.stream.sizes)), np.arange(0), 0):
            yield self.make.convert_labels(block)
