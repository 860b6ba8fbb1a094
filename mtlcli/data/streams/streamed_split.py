"""Examples of a split of a streamed data set, and their transfer to the training device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.dataset_loader import EpochOrder, place_labels
from mtlcli.data.example_weights import ExampleWeights
from mtlcli.data.examples import DeriveLabels, StreamedExamples, describe_read_error, wrap_read_errors
from mtlcli.data.formats.set_images import Decoder
from mtlcli.data.placement import Placement, Route
from mtlcli.data.streams.row_stream import ROW, Block, PassRows, SplitRows
from mtlcli.data.streams.set_rows import INPUTS, TARGET, WEIGHTS
from mtlcli.errors import ConfigError, MtlError
from mtlcli.specs import has_label

AHEAD = 4  # batches that a worker reads ahead
Piece = dict[str, Tensor]  # INPUTS, WEIGHTS, and TARGET with a name → values of n examples


@dataclass(frozen=True)
class StreamedInputs:
    """Inputs of a split, which is read from its beginning up to the wanted row.

    Attributes:
        rows: rows of the split.
        decode: decoder of images; None for features.
    """

    rows: SplitRows
    decode: Decoder | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        reader = PassRows(self.rows, 0, ())
        if row:
            reader.take(row)
        return _to_piece(reader.take(1), self.decode)[INPUTS][0]


@dataclass(frozen=True)
class StreamedSplit(StreamedExamples):
    """Examples of a split that are read in sequence, and shuffled by a buffer for training.

    Args:
        stream: rows of the split.
        buffer: number of rows in the shuffle buffer.
        decode: decoder of images; None for features.
        derived: name of a further target → function that computes its labels from the others.
    """

    stream: SplitRows = field(kw_only=True)
    buffer: int = field(kw_only=True)
    decode: Decoder | None = field(kw_only=True)
    derived: Mapping[str, DeriveLabels] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls, stream: SplitRows, buffer: int, decode: Decoder | None) -> StreamedSplit:
        """Return the examples of a split."""
        return cls(StreamedInputs(stream, decode), {}, stream=stream, buffer=buffer, decode=decode)

    def labels(self, target: str) -> Tensor:
        """Read all labels of a target, which takes a pass over the data.

        Args:
            target: name of the target.

        Returns:
            [n] or [n, size].
        """
        return torch.cat([self.labels_in(_tensors(block), target) for block in self._blocks()])

    def labels_in(self, piece: Piece, target: str) -> Tensor:
        """Return the labels of a target in a piece of the examples, [n] or [n, size]."""
        if (derive := self.derived.get(target)) is None:
            return piece[TARGET + target]
        return derive({name.removeprefix(TARGET): x for name, x in piece.items() if name.startswith(TARGET)})

    def with_labels(self, derived: Mapping[str, DeriveLabels]) -> StreamedSplit:
        """Return the examples with further targets, see `Examples.with_labels`."""
        return replace(self, derived={**self.derived, **derived})

    def sample_weights(self) -> Tensor | None:
        """Read the weights of all examples, which takes a pass over the data; None for equal weights."""
        if WEIGHTS not in next(iter(self._blocks())):
            return None
        return torch.from_numpy(np.concatenate([block[WEIGHTS] for block in self._blocks()]))

    def make_loader(
        self,
        alias: str,
        tasks: Mapping[str, tuple[str, str]],
        seed: int,
        placement: Placement,
        augment: Sequence[str | dict[str, Any]],
        class_weights: Mapping[str, Tensor] | None,
    ) -> StreamLoader:
        """Make the loader of the examples, see `StreamedExamples.make_loader`."""
        targets = {task: target for task, (source, target) in tasks.items() if source == alias}
        return StreamLoader(alias, self, targets, seed, placement, augment, class_weights or {})

    def _blocks(self) -> Iterator[Block]:
        return self.stream.arrivals(np.arange(len(self.stream.sizes)), np.arange(0), 0)


class StreamLoader:
    """Loads the examples of a streamed split, as `DatasetLoader` does those of others.

    The order of pass k depends on (seed, alias, k) only, and any position of it can be reached without the ones before
    it (see `BufferOrder`). Batches are read by one worker, or in this process.

    Args:
        alias: alias of the dataset.
        split: the examples.
        targets: task → name of its target, for the tasks of this dataset.
        seed: seed of the order and the augmentation of the examples.
        placement: device of the batches, and number of workers.
        augment: transforms of `torchvision.transforms.v2`, see `Augmentation`.
        class_weights: task → weight of each class in the loss, [K], for tasks with such weights.

    Raises:
        ConfigError: the split has no examples.
    """

    route: Route = "stream"

    def __init__(
        self,
        alias: str,
        split: StreamedSplit,
        targets: Mapping[str, str],
        seed: int,
        placement: Placement,
        augment: Sequence[str | dict[str, Any]],
        class_weights: Mapping[str, Tensor],
    ) -> None:
        if len(split) == 0:
            raise ConfigError(f"dataset {alias!r} has no examples in this split")
        self.alias, self.split, self.targets, self.seed = alias, split, targets, seed
        self.device, self.workers, self.class_weights = placement.device, min(1, placement.workers), class_weights
        self.augmentation = None
        if augment:
            self.augmentation = Augmentation(augment, seed, alias)
            with wrap_read_errors(alias):
                first = split.inputs[0]
            self.augmentation.check(first)

    def start_epoch(
        self, start: int, amount: int, chunks: Iterator[tuple[int, int]], shuffled: bool = True
    ) -> StreamOrder:
        """Prepare an epoch: positions [start, start + amount) of the endless stream of shuffled passes.

        Args:
            start: first position in the stream.
            amount: number of examples.
            chunks: chunks [start, stop) of the epoch, in the order in which they will be taken.
            shuffled: False for the stored order (then `start` is 0).

        Returns:
            The examples in the order of the epoch.
        """
        positions = [(start + first, start + last) for first, last in chunks]
        buffer, seed = (self.split.buffer if shuffled else 0), ("stream", self.seed, self.alias)
        pieces = _Pieces(self.split, buffer, seed, positions, self.augmentation)
        loader: DataLoader[Piece | MtlError] = DataLoader(
            pieces,
            batch_size=None,  # a piece is already a batch
            num_workers=self.workers,
            prefetch_factor=AHEAD if self.workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # otherwise it draws from the global generator
        )
        return StreamOrder(self.alias, iter(loader), self.split, self.targets, self.class_weights, self.device)


class StreamOrder:
    """A streamed dataset's examples in the order of one epoch, taken piece by piece.

    Args:
        alias: alias of the dataset.
        pieces: the pieces of `split`, in order.
        split: the examples.
        targets: task → name of its target.
        class_weights: task → weight of each class in the loss, [K].
        device: training device.
    """

    def __init__(
        self,
        alias: str,
        pieces: Iterator[Piece | MtlError],
        split: StreamedSplit,
        targets: Mapping[str, str],
        class_weights: Mapping[str, Tensor],
        device: torch.device,
    ) -> None:
        self.alias, self.pieces, self.split, self.targets = alias, pieces, split, targets
        self.class_weights, self.device = class_weights, device

    def take(self, amount: int) -> EpochOrder:
        """Return the next examples, whose labels are counted on the host.

        Args:
            amount: number of examples, that of the next chunk.

        Returns:
            These examples, in an order of their own.
        """
        with wrap_read_errors(self.alias):
            piece = next(self.pieces)
            if isinstance(piece, MtlError):
                try:
                    raise piece
                finally:
                    del piece  # avoids a cycle of the error and this frame
        inputs = piece[INPUTS].to(self.device, non_blocking=True)
        targets = {task: self.split.labels_in(piece, target) for task, target in self.targets.items()}
        masks = {task: has_label(target).numpy() for task, target in targets.items()}
        weights = None
        if WEIGHTS in piece or self.class_weights:
            rows = torch.arange(amount)
            own = ExampleWeights(targets, piece.get(WEIGHTS), self.class_weights, self.device)
            weights = own.order(rows.numpy(), rows.to(self.device))
        return EpochOrder(
            self.alias,
            lambda start, stop: inputs[start:stop],
            {task: place_labels(target, self.device) for task, target in targets.items()},
            {task: np.concatenate([[0], mask.cumsum()]) for task, mask in masks.items() if not mask.all()},
            weights,
        )


class _Pieces(IterableDataset[Piece | MtlError]):
    """Pieces of the endless stream of passes, made in a worker.

    Errors are returned rather than raised, because the DataLoader would wrap their messages in a traceback.
    """

    def __init__(
        self,
        split: StreamedSplit,
        buffer: int,
        seed: tuple[int | str, ...],
        positions: Iterable[tuple[int, int]],
        augmentation: Augmentation | None,
    ) -> None:
        self.rows, self.decode = split.stream, split.decode
        self.buffer, self.seed, self.positions = buffer, seed, positions
        self.augmentation = augmentation

    def __iter__(self) -> Iterator[Piece | MtlError]:
        try:
            yield from self._pieces()
        except MtlError as error:
            yield error
        except Exception as error:  # of the library and those below it
            yield MtlError(describe_read_error(error))

    def _pieces(self) -> Iterator[Piece]:
        size, reader, number = len(self.rows), None, -1
        for first, last in self.positions:
            blocks: list[Block] = []
            passes: list[int] = []
            while first < last:
                k, position = divmod(first, size)
                if reader is None or (number, reader.position) != (k, position):
                    reader, number = PassRows(self.rows, self.buffer, (*self.seed, k), position), k
                amount = min(last - first, size - position)
                blocks.append(reader.take(amount))
                passes += [k] * amount
                first += amount
            block = blocks[0]
            if len(blocks) > 1:
                block = {name: np.concatenate([part[name] for part in blocks]) for name in block}
            piece = _to_piece(block, self.decode)
            if self.augmentation is not None:
                inputs = self.augmentation(list(piece[INPUTS]), passes, block[ROW].tolist())
                piece[INPUTS] = torch.stack(inputs)
            yield piece


def _tensors(block: Block) -> Piece:
    return {name: torch.from_numpy(values) for name, values in block.items() if name not in (ROW, INPUTS)}


def _to_piece(block: Block, decode: Decoder | None) -> Piece:
    piece = _tensors(block)
    inputs = block[INPUTS]
    piece[INPUTS] = torch.from_numpy(inputs) if decode is None else decode(inputs.tolist(), block[ROW].tolist())
    return piece
