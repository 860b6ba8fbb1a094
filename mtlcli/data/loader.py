"""The batches of several datasets, step by step: a pure function of (seed, epoch, step)."""

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
            DatasetLoader(alias, part, tasks, seed, placement, augment.get(alias, ()))
            for alias, part in examples.items()
        ]

    @property
    def route(self) -> dict[str, Route]:
        """Alias → how its inputs reach the device."""
        return {feed.alias: feed.route for feed in self._feeds}

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `epoch` (from 0), from step `start` on."""
        opened = [
            feed.open(epoch * amount, amount, _chunks(self.sampler, index, start))
            for index, (feed, amount) in enumerate(zip(self._feeds, self.sampler.amounts, strict=True))
        ]
        for step in range(start, self.steps):
            yield _batch(zip(opened, self.sampler.take(step), strict=True))


def evaluation_batches(
    examples: Mapping[str, Examples], tasks: Tasks, placement: Placement, batch_size: int
) -> Iterator[Batch]:
    """Every example once, in order, one dataset after the other, without augmentation.

    examples: alias → the split of each dataset; tasks: task → (alias, target). ConfigError for an empty split.
    """
    for alias, part in examples.items():
        size = len(part)
        chunks = [(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
        opened = DatasetLoader(alias, part, tasks, 0, placement).open(0, size, iter(chunks), shuffled=False)
        for chunk in chunks:
            yield _batch([(opened, chunk)])


def _chunks(sampler: Sampler, index: int, start: int) -> Iterator[tuple[int, int]]:
    """What the steps from `start` on take of dataset `index`, where they take some."""
    for step in range(start, sampler.steps):
        first, last = sampler.take(step)[index]
        if last > first:
            yield first, last


def _batch(takes: Iterable[tuple[EpochOrder, tuple[int, int]]]) -> Batch:
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


@dataclass(frozen=True)
class Batch:
    """One step's examples, on the training device.

    inputs: alias of the dataset → raw inputs [B, *input_shape]; a dataset that gives none to this step is left out.
    targets: task → [B] or [B, size], for the tasks of the datasets in `inputs`.
    counts: task → number of labelled examples, known on the host without asking the device; a task that has none is
        in `targets` with the count 0, and sits the step out.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    counts: dict[str, int]
