"""The batches of several datasets, step by step: a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.batch import Batch
from mtlcli.data.dataset import Examples
from mtlcli.data.placement import Placement, Route
from mtlcli.data.sampler import Sampler
from mtlcli.data.shuffling import Passes, Rows
from mtlcli.data.streaming import Request, Stream
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX

Tasks = Mapping[str, tuple[str, str]]
Cut = Callable[[int, int], Tensor]  # [start, stop) of the order → the batch's inputs on the device


class Loader:
    """The training batches.

    examples: alias → the split `train` of each dataset, in the experiment's order.
    tasks: task → (alias, target).
    sampler: made for the sizes of `examples`, in their order.
    placement: the device, and how inputs get there.
    augment: alias → transforms of `transforms.v2`, as `Augmentation` says.

    Batches that start in the middle of an epoch are those the whole epoch would have given, and both routes give the
    same, bit for bit. Nothing here reads or changes torch's random state. A resident dataset's batch is one gather on
    the device per input and a slice per target: no Python per example, no synchronization.
    ConfigError where a dataset has no examples, ValueError for augmentation that doesn't fit.
    """

    def __init__(
        self,
        examples: Mapping[str, Examples],
        tasks: Tasks,
        sampler: Sampler,
        seed: int,
        placement: Placement,
        augment: Mapping[str, Sequence[str | dict[str, Any]]] | None = None,
    ) -> None:
        augment = augment or {}
        self.sampler, self.steps = sampler, sampler.steps
        self._feeds = [
            _Feed(alias, part, tasks, seed, placement, augment.get(alias, ())) for alias, part in examples.items()
        ]

    @property
    def route(self) -> dict[str, Route]:
        """Alias → how its inputs reach the device."""
        return {feed.alias: feed.route for feed in self._feeds}

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `epoch` (from 0), from step `start` on."""
        opened = [
            feed.open(epoch * amount, amount, self._chunks(index, start))
            for index, (feed, amount) in enumerate(zip(self._feeds, self.sampler.amounts, strict=True))
        ]
        for step in range(start, self.steps):
            yield _batch(zip(opened, self.sampler.take(step), strict=True))

    def _chunks(self, index: int, start: int) -> Iterator[tuple[int, int]]:
        takes = (self.sampler.take(step)[index] for step in range(start, self.steps))
        return ((first, last) for first, last in takes if last > first)


def evaluation_batches(
    examples: Mapping[str, Examples], tasks: Tasks, placement: Placement, batch_size: int
) -> Iterator[Batch]:
    """Every example once, in order, one dataset after the other, without augmentation.

    examples: alias → the split of each dataset; tasks: task → (alias, target). ConfigError for an empty split.
    """
    for alias, part in examples.items():
        size = len(part)
        chunks = [(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
        opened = _Feed(alias, part, tasks, 0, placement).open(0, size, iter(chunks), shuffled=False)
        for chunk in chunks:
            yield _batch([(opened, chunk)])


@dataclass(frozen=True)
class _Order:
    """A dataset's examples in the order of one epoch.

    targets: task → [amount, …] on the device, in that order. labelled: task → number of labelled examples before
    each position, [amount + 1], for the tasks that have missing labels.
    """

    alias: str
    cut: Cut
    targets: dict[str, Tensor]
    labelled: dict[str, Rows]


def _batch(takes: Iterable[tuple[_Order, tuple[int, int]]]) -> Batch:
    inputs: dict[str, Tensor] = {}
    targets: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for order, (start, stop) in takes:
        if start == stop:
            continue
        inputs[order.alias] = order.cut(start, stop)
        for task, target in order.targets.items():
            targets[task] = target[start:stop]
            seen = order.labelled.get(task)
            counts[task] = stop - start if seen is None else int(seen[stop] - seen[start])
    return Batch(inputs, targets, counts)


class _Feed:
    """One dataset's examples, on their way to the device."""

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
        self.passes = Passes(len(examples), seed, alias)
        targets = {task: examples.targets[target] for task, (source, target) in tasks.items() if source == alias}
        self.targets = {task: target.to(self.device) for task, target in targets.items()}
        masks = {task: is_labelled(target).numpy() for task, target in targets.items()}
        self.masks = {task: mask for task, mask in masks.items() if not mask.all()}
        self.augmented = bool(augment)
        self.resident = self.stream = None
        if augment:
            augmentation = Augmentation(augment, seed, alias)
            augmentation.check(examples.inputs[0])
            workers = 0 if placement.loading == "resident" else placement.workers
            self.stream = Stream(examples.inputs, self.device, workers, augmentation)
        else:
            self.resident = placement.resident(examples.inputs)
            if self.resident is None:
                self.stream = Stream(examples.inputs, self.device, placement.workers)

    @property
    def route(self) -> Route:
        return "stream" if self.resident is None else "resident"

    def open(self, start: int, amount: int, chunks: Iterator[tuple[int, int]], shuffled: bool = True) -> _Order:
        """Positions [start, start + amount) of the dataset's stream, to be asked for chunk by chunk."""
        order = self.passes.order(start, start + amount) if shuffled else np.arange(amount)
        rows = order if self.rows is None else self.rows[order]
        on_device = torch.from_numpy(rows).to(self.device)
        return _Order(
            self.alias,
            self._cut(start, rows, on_device, chunks),
            {task: target.index_select(0, on_device) for task, target in self.targets.items()},
            {task: np.concatenate([[0], mask[rows].cumsum()]) for task, mask in self.masks.items()},
        )

    def _cut(self, start: int, rows: Rows, on_device: Tensor, chunks: Iterator[tuple[int, int]]) -> Cut:
        resident = self.resident
        if resident is not None:
            return gatherer(resident, on_device)

        def request(first: int, last: int) -> Request:
            passes = self.passes.number(start + first, start + last).tolist() if self.augmented else []
            return rows[first:last].tolist(), passes

        assert self.stream is not None
        following = self.stream.batches(request(first, last) for first, last in chunks)
        return lambda first, last: following()


def gatherer(inputs: Tensor, rows: Tensor) -> Cut:
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


def is_labelled(target: Tensor) -> Tensor:
    """bool [N]: which examples have a label; of several labels one is enough. target as `TargetSpec` says."""
    if target.is_floating_point():
        known = ~target.isnan()
        return known if known.ndim == 1 else known.flatten(1).any(1)
    return target != IGNORE_INDEX
