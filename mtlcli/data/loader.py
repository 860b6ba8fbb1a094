"""Batches of several datasets: a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.data.dataset_loader import DatasetLoader, EpochOrder, Tasks
from mtlcli.data.placement import Placement, Route
from mtlcli.data.samplers.base import Sampler


class Loader:
    """Training batches of several datasets.

    Batches that start in the middle of an epoch are those that the whole epoch would have given, and both routes of the
    inputs give the same batches, bit for bit. Torch's random state is neither read nor changed. The batch of a resident
    dataset takes one gather on the device for the inputs and one slice per target, without Python code per example or
    synchronization.

    Raises a ConfigError if a dataset has no examples. Raises a ValueError if the augmentation doesn't fit the
    examples.

    Args:
        examples: alias → split `train` of each dataset, in the experiment's order.
        tasks: task → (alias of its dataset, name of its target).
        sampler: sampler for the sizes of `examples`, in their order.
        seed: seed of the order and the augmentation of the examples.
        placement: device, and route of the inputs to it.
        augment: alias → transforms of `torchvision.transforms.v2`, see `Augmentation`.
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
        self._loaders = [
            DatasetLoader(alias, split, tasks, seed, placement, augment.get(alias, ()))
            for alias, split in examples.items()
        ]

    @property
    def route(self) -> dict[str, Route]:
        """Alias → route of its inputs to the device."""
        return {loader.alias: loader.route for loader in self._loaders}

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch.

        Args:
            epoch: number of the epoch, from 0.
            start: first step.

        Yields:
            One batch per step.
        """
        orders = [
            loader.start_epoch(epoch * amount, amount, _iterate_chunks(self.sampler, index, start))
            for index, (loader, amount) in enumerate(zip(self._loaders, self.sampler.amounts, strict=True))
        ]
        for step in range(start, self.steps):
            yield _make_batch(zip(orders, self.sampler.take(step), strict=True))


def evaluation_batches(
    examples: Mapping[str, Examples], tasks: Tasks, placement: Placement, batch_size: int
) -> Iterator[Batch]:
    """Iterate over every example once, in order, one dataset after the other, without augmentation.

    Raises a ConfigError if a split is empty.

    Args:
        examples: alias → split to evaluate of each dataset.
        tasks: task → (alias of its dataset, name of its target).
        placement: device, and route of the inputs to it.
        batch_size: maximum number of examples in a batch.

    Yields:
        Batches of one dataset each.
    """
    for alias, split in examples.items():
        size = len(split)
        chunks = [(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
        order = DatasetLoader(alias, split, tasks, 0, placement).start_epoch(0, size, iter(chunks), shuffled=False)
        for chunk in chunks:
            yield _make_batch([(order, chunk)])


def _iterate_chunks(sampler: Sampler, index: int, start: int) -> Iterator[tuple[int, int]]:
    """Yield the non-empty chunks of dataset `index` in the steps from `start` on."""
    for step in range(start, sampler.steps):
        first, last = sampler.take(step)[index]
        if last > first:
            yield first, last


def _make_batch(takes: Iterable[tuple[EpochOrder, tuple[int, int]]]) -> Batch:
    inputs: dict[str, Tensor] = {}
    targets: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for order, (start, stop) in takes:
        if start == stop:
            continue
        inputs[order.alias] = order.fetch(start, stop)
        for task, target in order.targets.items():
            targets[task] = target[start:stop]
            labelled = order.labelled.get(task)
            counts[task] = stop - start if labelled is None else int(labelled[stop] - labelled[start])
    return Batch(inputs, targets, counts)


@dataclass(frozen=True)
class Batch:
    """Examples of one step, on the training device.

    Attributes:
        inputs: alias → raw inputs [B, *input_shape]; datasets without examples in this step are omitted.
        targets: task → labels [B] or [B, size], for the tasks of the datasets in `inputs`.
        counts: task → number of labelled examples, known on the host without synchronization. A task without any is in
            `targets` with the count 0, and has no part in the step.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    counts: dict[str, int]
