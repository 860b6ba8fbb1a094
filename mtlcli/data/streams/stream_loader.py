"""Transfer of the examples of a stream to the training device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.bucketing import Window
from mtlcli.data.dataset_loader import EpochOrder, place_labels
from mtlcli.data.example_weights import ExampleWeights, LabelWeights
from mtlcli.data.examples import describe_read_error, wrap_read_errors
from mtlcli.data.label_counts import count_labels
from mtlcli.data.placement import Placement, Route
from mtlcli.data.streams.pieces import Piece, PieceMaker
from mtlcli.data.streams.row_stream import ROW, Block, PassRows, SplitRows
from mtlcli.data.streams.set_rows import INPUTS, TARGET, WEIGHTS
from mtlcli.errors import ConfigError, MtlError

AHEAD = 4  # batches that a worker reads ahead


class StreamLoader:
    """Loads the examples of a streamed split, as `DatasetLoader` does those of others.

    The order of pass k depends on (seed, alias, k) only, and any position of it can be reached without the ones before
    it (see `BufferOrder`). Batches are read by one worker, or in this process.

    Args:
        alias: alias of the dataset.
        rows: rows of the split.
        buffer: number of rows in the shuffle buffer.
        make: converts rows to examples.
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
        rows: SplitRows,
        buffer: int,
        make: PieceMaker,
        targets: Mapping[str, str],
        seed: int,
        placement: Placement,
        augment: Sequence[str | dict[str, Any]],
        class_weights: Mapping[str, LabelWeights],
    ) -> None:
        if len(rows) == 0:
            raise ConfigError(f"dataset {alias!r} has no examples in this split")
        self.alias, self.targets, self.seed = alias, targets, seed
        self.rows, self.buffer, self.make = rows, buffer, make
        self.device, self.workers, self.class_weights = placement.device, min(1, placement.workers), class_weights
        self.augmentation = None
        if augment:
            self.augmentation = Augmentation(augment, seed, alias)
            with wrap_read_errors(alias):
                first = make.convert(PassRows(rows, 0, ()).take(1))[INPUTS][0]
            self.augmentation.check(first)

    @property
    def of_texts(self) -> bool:
        """True if the inputs are texts, whose batches differ in length."""
        return self.make.tokenize is not None

    def start_epoch(
        self,
        start: int,
        amount: int,
        chunks: Iterator[tuple[int, int]],
        shuffled: bool = True,
        windows: Sequence[Window] | None = None,
        by_length: bool = False,
    ) -> StreamOrder:
        """Prepare an epoch: positions [start, start + amount) of the endless stream of shuffled passes.

        Args:
            start: first position in the stream.
            amount: number of examples.
            chunks: chunks [start, stop) of the epoch, in the order in which they will be taken.
            shuffled: False for the stored order (then `start` is 0).
            windows: windows of texts that are sorted by length; None to leave all where they are.
            by_length: without effect, since the order can't be known before all examples are read.

        Returns:
            The examples in the order of the epoch.
        """
        positions = [(start + first, start + last) for first, last in chunks]
        buffer, seed = (self.buffer if shuffled else 0), ("stream", self.seed, self.alias)
        pieces = _Pieces(self.rows, self.make, buffer, seed, positions, self.augmentation, start, windows)
        loader: DataLoader[Piece | MtlError] = DataLoader(
            pieces,
            batch_size=None,  # a piece is already a batch
            num_workers=self.workers,
            prefetch_factor=AHEAD if self.workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # otherwise it draws from the global generator
        )
        return StreamOrder(self.alias, iter(loader), self.targets, self.class_weights, self.device)


class StreamOrder:
    """A streamed dataset's examples in the order of one epoch, taken piece by piece.

    Args:
        alias: alias of the dataset.
        pieces: the pieces, in order.
        targets: task → name of its target.
        class_weights: task → weight of each class in the loss, [K].
        device: training device.
    """

    def __init__(
        self,
        alias: str,
        pieces: Iterator[Piece | MtlError],
        targets: Mapping[str, str],
        class_weights: Mapping[str, LabelWeights],
        device: torch.device,
    ) -> None:
        self.alias, self.pieces, self.targets = alias, pieces, targets
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
        targets = {task: piece[TARGET + target] for task, target in self.targets.items()}
        amounts = {task: count_labels(target).numpy() for task, target in targets.items()}
        weights = None
        if WEIGHTS in piece or self.class_weights:
            rows = torch.arange(amount)
            own = ExampleWeights(targets, piece.get(WEIGHTS), self.class_weights, self.device)
            weights = own.order(rows.numpy(), rows.to(self.device))
        return EpochOrder(
            self.alias,
            lambda start, stop: inputs[start:stop],
            {task: place_labels(target, self.device) for task, target in targets.items()},
            {task: np.concatenate([[0], n.cumsum()]) for task, n in amounts.items() if (n != 1).any()},
            weights,
        )


class _Pieces(IterableDataset[Piece | MtlError]):
    """Pieces of the endless stream of passes, made in a worker.

    Errors are returned rather than raised, because the DataLoader would wrap their messages in a traceback.
    """

    def __init__(
        self,
        rows: SplitRows,
        make: PieceMaker,
        buffer: int,
        seed: tuple[int | str, ...],
        positions: Iterable[tuple[int, int]],
        augmentation: Augmentation | None,
        start: int,
        windows: Sequence[Window] | None,
    ) -> None:
        self.rows, self.make, self.start, self.windows = rows, make, start, windows
        self.buffer, self.seed, self.positions = buffer, seed, positions
        self.augmentation = augmentation

    def __iter__(self) -> Iterator[Piece | MtlError]:
        try:
            yield from self._pieces() if self.windows is None else self._sorted_pieces(self.windows)
        except MtlError as error:
            yield error
        except Exception as error:  # of the library and those below it
            yield MtlError(describe_read_error(error))

    def _blocks(self, positions: Iterable[tuple[int, int]]) -> Iterator[tuple[Block, list[int]]]:
        """Read the rows at some positions, and the number of the pass of each."""
        size, reader, number = len(self.rows), None, -1
        for first, last in positions:
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
            yield block, passes

    def _sorted_pieces(self, windows: Sequence[Window]) -> Iterator[Piece]:
        """Make the pieces of texts window by window, from the window of the first wanted piece on."""
        wanted = next(iter(self.positions), (self.start, self.start))[0] - self.start
        windows = [window for window in windows if window.stop > wanted]
        spans = ((self.start + window.start, self.start + window.stop) for window in windows)
        for window, (block, _) in zip(windows, self._blocks(spans), strict=True):
            tokens = self.make.convert_texts(block[INPUTS].tolist())
            labels, order = self.make.convert_labels(block), window.arrange(tokens.lengths)
            for first, last in window.chunks:
                rows = order[first - window.start : last - window.start]
                if first >= wanted:
                    yield {INPUTS: tokens.batch(rows), **{name: values[rows] for name, values in labels.items()}}

    def _pieces(self) -> Iterator[Piece]:
        for block, passes in self._blocks(self.positions):
            piece = self.make.convert(block)
            if self.augmentation is not None:
                inputs = self.augmentation(list(piece[INPUTS]), passes, block[ROW].tolist())
                piece[INPUTS] = torch.stack(inputs)
            yield piece
