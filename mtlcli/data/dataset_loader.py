"""One dataset's examples on their way to the training device, in the order of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.base import Examples
from mtlcli.data.examples import reading
from mtlcli.data.placement import Placement, Request, Route, Stream
from mtlcli.data.shuffling import Rows, ShuffledEpochs
from mtlcli.errors import ConfigError
from mtlcli.specs import has_label

Tasks = Mapping[str, tuple[str, str]]  # task → (alias of its dataset, name of its target)
FetchBatch = Callable[[int, int], Tensor]  # [start, stop) of the order → the batch's inputs, on the device


@dataclass(frozen=True)
class EpochOrder:
    """A dataset's examples in the order of one epoch.

    targets: task → [amount, …] on the device, in that order. labelled: task → number of labelled examples before
    each position, [amount + 1], for the tasks that have missing labels.
    """

    alias: str
    cut: FetchBatch
    targets: dict[str, Tensor]
    labelled: dict[str, Rows]


class DatasetLoader:
    """One dataset's examples: resident on the device, or streamed to it.

    examples: of one split. tasks: all of the experiment; those of other datasets are passed over.
    augment: transforms of `transforms.v2`. ConfigError where there are no examples, ValueError for augmentation that
    doesn't fit.
    """

    def __init__(
        self,
        alias: str,
        examples: Examples,
        tasks: Tasks,
        seed: int,
        placement: Placement,
        augment: Sequence[str | dict[str, Any]] = (),
    ) -> None:
        if len(examples) == 0:
            raise ConfigError(f"dataset {alias!r} has no examples in this split")
        self.alias, self.device = alias, placement.device
        self.rows = None if examples.rows is None else examples.rows.numpy()
        self.passes = ShuffledEpochs(len(examples), seed, alias)
        targets = {task: examples.targets[target] for task, (source, target) in tasks.items() if source == alias}
        self.targets = {task: _place(target, self.device) for task, target in targets.items()}
        masks = {task: has_label(target).numpy() for task, target in targets.items()}
        self.masks = {task: mask for task, mask in masks.items() if not mask.all()}
        self.augmented = bool(augment)
        self.resident = self.stream = None
        if augment:
            augmentation = Augmentation(augment, seed, alias)
            with reading(alias):
                first = examples.inputs[0]
            augmentation.check(first)
            self.stream = Stream(examples.inputs, self.device, placement.workers, augmentation)
        else:
            with reading(alias):
                self.resident = placement.resident(examples.inputs)
            if self.resident is None:
                self.stream = Stream(examples.inputs, self.device, placement.workers)

    @property
    def route(self) -> Route:
        return "stream" if self.resident is None else "resident"

    def open(self, start: int, amount: int, chunks: Iterator[tuple[int, int]], shuffled: bool = True) -> EpochOrder:
        """Positions [start, start + amount) of the dataset's stream, to be asked for chunk by chunk."""
        order = self.passes.order(start, start + amount) if shuffled else np.arange(amount)
        rows = order if self.rows is None else self.rows[order]
        on_device = torch.from_numpy(rows).to(self.device)
        return EpochOrder(
            self.alias,
            self._cut(start, rows, on_device, chunks),
            {task: target.index_select(0, on_device) for task, target in self.targets.items()},
            {task: np.concatenate([[0], mask[rows].cumsum()]) for task, mask in self.masks.items()},
        )

    def _cut(self, start: int, rows: Rows, on_device: Tensor, chunks: Iterator[tuple[int, int]]) -> FetchBatch:
        resident = self.resident
        if resident is not None:
            return make_gather(resident, on_device)

        assert self.stream is not None
        requests = _iterate_requests(self.passes if self.augmented else None, start, rows, chunks)
        following = self.stream.batches(requests)
        alias = self.alias

        def cut(first: int, last: int) -> Tensor:
            with reading(alias):
                return following()

        return cut


def _place(target: Tensor, device: torch.device) -> Tensor:
    """The labels on the device; MPS has no float64."""
    return (target.float() if device.type == "mps" and target.dtype == torch.float64 else target).to(device)


def _iterate_requests(
    passes: ShuffledEpochs | None, start: int, rows: Rows, chunks: Iterator[tuple[int, int]]
) -> Iterator[Request]:
    # A generator of its own: one that held the Feed would make a cycle with its DataLoader, and workers collected as
    # part of a cycle are waited for, 5 s each.
    for first, last in chunks:
        numbers = [] if passes is None else passes.number(start + first, start + last).tolist()
        yield rows[first:last].tolist(), numbers


def make_gather(inputs: Tensor, rows: Tensor) -> FetchBatch:
    """[start, stop) → inputs[rows[start:stop]], in one copy.

    The copy is of 8-byte words where an input is made of whole ones: the CPU's gather of a batch of images is then
    four times as fast, as it no longer wakes other threads to share out the bytes.
    """
    words = None
    if inputs.is_contiguous() and inputs[0].nbytes % 8 == 0 and inputs.data_ptr() % 8 == 0 and inputs.ndim > 1:
        words = inputs.flatten(1).view(torch.int64)
    if words is None:
        return lambda start, stop: inputs.index_select(0, rows[start:stop])
    dtype, shape = inputs.dtype, (-1, *inputs.shape[1:])
    return lambda start, stop: words.index_select(0, rows[start:stop]).view(dtype).view(shape)
