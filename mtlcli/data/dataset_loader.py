"""Transfer of one dataset's examples to the training device, in the order of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.base import Examples
from mtlcli.data.batch_stream import InputReader, Request, Stream
from mtlcli.data.bucketing import Window
from mtlcli.data.example_weights import ExampleWeights, LabelWeights, OrderedWeights
from mtlcli.data.examples import wrap_read_errors
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.label_counts import count_labels
from mtlcli.data.map_batches import MapOrder, MapSource
from mtlcli.data.placement import FetchBatch, Placement, Route, make_gather
from mtlcli.data.samplers.base import Rows, ShuffledEpochs
from mtlcli.errors import ConfigError
from mtlcli.specs import TargetSpec

Tasks = Mapping[str, tuple[str, str]]  # task → (alias of its dataset, name of its target)


@dataclass(frozen=True)
class EpochOrder:
    """A dataset's examples in the order of one epoch.

    Attributes:
        alias: alias of the dataset.
        fetch: function that returns the inputs of positions [start, stop).
        targets: task → labels [amount] or [amount, size] on the device, in this order, for targets that aren't maps.
        labelled: task → number of labels before each position (see `count_labels`), [amount + 1], for tasks with
            missing labels or several in an example.
        weights: weights of the examples; None if no task has weights.
        maps: targets that are maps, of the positions that were fetched last; None if no task has any.
    """

    alias: str
    fetch: FetchBatch
    targets: dict[str, Tensor]
    labelled: dict[str, Rows]
    weights: OrderedWeights | None = None
    maps: MapOrder | None = None


class PieceOrder(Protocol):
    """A dataset's examples in the order of one epoch, which can only be taken one piece after the other."""

    alias: str

    def take(self, amount: int) -> EpochOrder:
        """Return the next examples, in an order of their own."""


class DatasetLoader:
    """Loads one dataset's examples, resident on the device or streamed to it.

    Raises a ValueError if the augmentation doesn't fit the examples.

    Args:
        alias: alias of the dataset.
        examples: examples of one split.
        tasks: task → (alias, target), for all tasks of the experiment; those of other datasets are ignored.
        seed: seed of the order and the augmentation of the examples.
        placement: device, and route of the inputs to it.
        augment: transforms of `torchvision.transforms.v2`, see `Augmentation`.
        class_weights: task → weight of each class in the loss, [K], for tasks with such weights.
        map_targets: task → specification of its target, for the tasks whose targets are maps.

    Raises:
        ConfigError: the split has no examples.
    """

    def __init__(
        self,
        alias: str,
        examples: Examples,
        tasks: Tasks,
        seed: int,
        placement: Placement,
        augment: Sequence[str | dict[str, Any]] = (),
        class_weights: Mapping[str, LabelWeights] | None = None,
        map_targets: Mapping[str, TargetSpec] | None = None,
    ) -> None:
        if len(examples) == 0:
            raise ConfigError(f"dataset {alias!r} has no examples in this split")
        self.alias, self.device, self.seed = alias, placement.device, seed
        self.lengths = examples.inputs.lengths if isinstance(examples.inputs, TokenRows) else None
        self.rows = None if examples.rows is None else examples.rows.numpy()
        self.passes = ShuffledEpochs(len(examples), seed, alias)
        own = {task: target for task, (source, target) in tasks.items() if source == alias}
        of_maps = {task: (own[task], spec) for task, spec in (map_targets or {}).items() if task in own}
        targets = {task: examples.targets[target] for task, target in own.items() if task not in of_maps}
        self.targets = {task: place_labels(target, self.device) for task, target in targets.items()}
        amounts = {task: count_labels(target).numpy() for task, target in targets.items()}
        self.amounts = {task: amount for task, amount in amounts.items() if (amount != 1).any()}
        self.weights = None
        if examples.weights is not None or (class_weights and not class_weights.keys().isdisjoint(targets)):
            self.weights = ExampleWeights(targets, examples.weights, class_weights or {}, self.device)
        self.augmented = bool(augment)
        self.resident = self.stream = self.maps = None
        if of_maps:
            augmentation = Augmentation(augment, seed, alias, dict(of_maps.values())) if augment else None
            self.maps = MapSource(alias, examples, of_maps, placement, augmentation, class_weights or {})
        elif augment:
            augmentation = Augmentation(augment, seed, alias)
            with wrap_read_errors(alias):
                inputs = placement.in_memory(examples.inputs)
                first = inputs[0]
            augmentation.check(first)
            self.stream = Stream(InputReader(inputs, augmentation), self.device, placement.workers)
        else:
            with wrap_read_errors(alias):
                self.resident = placement.resident(examples.inputs)
            if self.resident is None:
                self.stream = Stream(InputReader(examples.inputs), self.device, placement.workers)

    @property
    def route(self) -> Route:
        """Route of the inputs to the device."""
        resident = self.resident is not None if self.maps is None else self.maps.resident
        return "resident" if resident else "stream"

    @property
    def of_texts(self) -> bool:
        """True if the inputs are texts, whose batches differ in length."""
        return self.lengths is not None

    def start_epoch(
        self,
        start: int,
        amount: int,
        chunks: Iterator[tuple[int, int]],
        shuffled: bool = True,
        windows: Sequence[Window] | None = None,
        by_length: bool = False,
    ) -> EpochOrder:
        """Prepare an epoch: positions [start, start + amount) of the endless stream of shuffled passes.

        Args:
            start: first position in the stream.
            amount: number of examples.
            chunks: chunks [start, stop) of the epoch, in the order in which they will be fetched.
            shuffled: False for the stored order (then `start` is 0).
            windows: windows of texts that are sorted by length; None to leave all where they are.
            by_length: sort all texts by length, the longest first.

        Returns:
            The examples in the order of the epoch.
        """
        order = self.passes.order(start, start + amount) if shuffled else np.arange(amount)
        rows = order if self.rows is None else self.rows[order]
        if self.lengths is not None and windows is not None:
            parts = [rows[window.start : window.stop] for window in windows]
            rows = np.concatenate([
                part[window.arrange(self.lengths[part])] for window, part in zip(windows, parts, strict=True)
            ])  # fmt: skip
        elif self.lengths is not None and by_length:
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
        on_device = torch.from_numpy(rows).to(self.device)
        maps = None
        if self.maps is not None:
            requests = _iterate_requests(self.passes if self.augmented else None, start, rows, chunks)
            maps = self.maps.order(rows, on_device, requests)
        return EpochOrder(
            self.alias,
            self._make_fetch(start, rows, on_device, chunks) if maps is None else maps.fetch,
            {task: target.index_select(0, on_device) for task, target in self.targets.items()},
            {task: np.concatenate([[0], amount[rows].cumsum()]) for task, amount in self.amounts.items()},
            None if self.weights is None else self.weights.order(rows, on_device),
            maps,
        )

    def _make_fetch(self, start: int, rows: Rows, on_device: Tensor, chunks: Iterator[tuple[int, int]]) -> FetchBatch:
        resident = self.resident
        if resident is not None:
            if isinstance(resident, TokenRows):
                return _gather_tokens(resident, rows, on_device)
            return make_gather(resident, on_device)

        assert self.stream is not None
        requests = _iterate_requests(self.passes if self.augmented else None, start, rows, chunks)
        next_batch = self.stream.batches(requests)
        alias = self.alias

        def fetch(first: int, last: int) -> Tensor:
            with wrap_read_errors(alias):
                inputs: Tensor = next_batch()
                return inputs

        return fetch


def _gather_tokens(tokens: TokenRows, rows: Rows, on_device: Tensor) -> FetchBatch:
    """Return a function that gathers a batch of tokens, padded to its longest example, without synchronization."""
    lengths = tokens.lengths[rows]
    return lambda start, stop: tokens.gather(on_device[start:stop], int(lengths[start:stop].max()))


def place_labels(target: Tensor, device: torch.device) -> Tensor:
    """Move labels to the device; as float32 on MPS, which has no float64."""
    return (target.float() if device.type == "mps" and target.dtype == torch.float64 else target).to(device)


def _iterate_requests(
    passes: ShuffledEpochs | None, start: int, rows: Rows, chunks: Iterator[tuple[int, int]]
) -> Iterator[Request]:
    # Not a method: a generator that holds the DatasetLoader would form a reference cycle with its DataLoader, and
    # collecting workers as part of a cycle blocks for 5 s each.
    for first, last in chunks:
        numbers = [] if passes is None else passes.number(start + first, start + last).tolist()
        yield rows[first:last].tolist(), numbers
