"""Batches of several datasets: a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.data.bucketing import Window, make_windows
from mtlcli.data.dataset_loader import DatasetLoader, EpochOrder, PieceOrder, Tasks
from mtlcli.data.example_weights import LabelWeights, OrderedWeights
from mtlcli.data.examples import StreamedExamples
from mtlcli.data.map_batches import MapBatch
from mtlcli.data.placement import Placement, Route
from mtlcli.data.samplers.base import Sampler
from mtlcli.specs import TargetSpec


class Loader:
    """Training batches of several datasets.

    Batches that start in the middle of an epoch are those that the whole epoch would have given, and both routes of the
    inputs give the same batches, bit for bit. Torch's random state is neither read nor changed. The batch of a resident
    dataset takes one gather on the device for the inputs and one slice per target, without Python code per example or
    synchronization.

    Raises a ConfigError if a dataset has no examples. Raises a ValueError if the augmentation doesn't fit the
    examples.

    A batch of texts has texts of similar length: the batches of a window are cut from its examples, sorted by length.

    Args:
        examples: alias → split `train` of each dataset, in the experiment's order.
        tasks: task → (alias of its dataset, name of its target).
        sampler: sampler for the sizes of `examples`, in their order.
        seed: seed of the order and the augmentation of the examples.
        placement: device, and route of the inputs to it.
        augment: alias → transforms of `torchvision.transforms.v2`, see `Augmentation`.
        class_weights: task → weight of each class in the loss, [K], for tasks with such weights.
        bucketing: number of batches of texts in a window; 0 for batches in random order.
        map_targets: task → specification of its target, for the tasks whose targets are maps.
    """

    def __init__(
        self,
        examples: Mapping[str, Examples],
        tasks: Tasks,
        sampler: Sampler,
        seed: int,
        placement: Placement,
        augment: Mapping[str, Sequence[str | dict[str, Any]]] | None = None,
        class_weights: Mapping[str, LabelWeights] | None = None,
        bucketing: int = 0,
        map_targets: Mapping[str, TargetSpec] | None = None,
    ) -> None:
        augment = augment or {}
        self.bucketing = bucketing
        self.sampler, self.steps = sampler, sampler.steps
        self._loaders = [
            _make_loader(alias, split, tasks, seed, placement, augment.get(alias, ()), class_weights, map_targets)
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
            loader.start_epoch(
                epoch * amount,
                amount,
                _iterate_chunks(self.sampler, index, start),
                windows=self._windows(loader, index, epoch * amount) if self.bucketing and loader.of_texts else None,
            )
            for index, (loader, amount) in enumerate(zip(self._loaders, self.sampler.amounts, strict=True))
        ]
        for step in range(start, self.steps):
            yield _make_batch(zip(orders, self.sampler.take(step), strict=True))

    def _windows(self, loader: DatasetLoader, index: int, start: int) -> list[Window]:
        chunks = list(_iterate_chunks(self.sampler, index, 0))
        return make_windows(chunks, self.bucketing, loader.seed, loader.alias, start)


def evaluation_batches(
    examples: Mapping[str, Examples],
    tasks: Tasks,
    placement: Placement,
    batch_size: int,
    class_weights: Mapping[str, LabelWeights] | None = None,
    in_order: bool = False,
    map_targets: Mapping[str, TargetSpec] | None = None,
) -> Iterator[Batch]:
    """Iterate over every example once, one dataset after the other, without augmentation.

    Texts that are not streamed are in the order of their length, from the longest on, others in their own.

    Raises a ConfigError if a split is empty.

    Args:
        examples: alias → split to evaluate of each dataset.
        tasks: task → (alias of its dataset, name of its target).
        placement: device, and route of the inputs to it.
        batch_size: maximum number of examples in a batch.
        class_weights: task → weight of each class in the loss, [K], for tasks with such weights.
        in_order: whether texts are in their own order too.
        map_targets: task → specification of its target, for the tasks whose targets are maps.

    Yields:
        Batches of one dataset each.
    """
    for alias, split in examples.items():
        size = len(split)
        chunks = [(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
        loader = _make_loader(alias, split, tasks, 0, placement, (), class_weights, map_targets)
        by_length = loader.of_texts and not in_order
        order = loader.start_epoch(0, size, iter(chunks), shuffled=False, by_length=by_length)
        for chunk in chunks:
            yield _make_batch([(order, chunk)])


def _make_loader(
    alias: str,
    split: Examples,
    tasks: Tasks,
    seed: int,
    placement: Placement,
    augment: Sequence[str | dict[str, Any]],
    class_weights: Mapping[str, LabelWeights] | None,
    map_targets: Mapping[str, TargetSpec] | None,
) -> DatasetLoader:
    if isinstance(split, StreamedExamples):
        loader: DatasetLoader = split.make_loader(alias, tasks, seed, placement, augment, class_weights)
        return loader
    return DatasetLoader(alias, split, tasks, seed, placement, augment, class_weights, map_targets)


def _iterate_chunks(sampler: Sampler, index: int, start: int) -> Iterator[tuple[int, int]]:
    """Yield the non-empty chunks of dataset `index` in the steps from `start` on."""
    for step in range(start, sampler.steps):
        first, last = sampler.take(step)[index]
        if last > first:
            yield first, last


def _make_batch(takes: Iterable[tuple[EpochOrder | PieceOrder, tuple[int, int]]]) -> Batch:
    batch = Batch({}, {}, {})
    for order, (start, stop) in takes:
        if start == stop:
            continue
        if not isinstance(order, EpochOrder):
            order, start, stop = order.take(stop - start), 0, stop - start
        batch.inputs[order.alias] = order.fetch(start, stop)
        for task, target in order.targets.items():
            batch.targets[task] = target[start:stop]
            labelled = order.labelled.get(task)
            batch.counts[task] = stop - start if labelled is None else int(labelled[stop] - labelled[start])
        if order.weights is not None:
            _add_weights(batch, order.weights, start, stop)
        if order.maps is not None:
            _add_maps(batch, order.maps.take(start, stop))
    return batch


def _add_weights(batch: Batch, weights: OrderedWeights, start: int, stop: int) -> None:
    """Add the weights of positions [start, stop) of an epoch to a batch, and replace its counts by their sums."""
    for task, loss in weights.loss.items():
        batch.weights[task] = loss[start:stop]
        batch.counts[task] = float(weights.amounts[task][start:stop].sum())
        batch.labelled[task] = int(weights.counted[task][start:stop].sum())
    for task, own in weights.metrics.items():
        batch.metric_weights[task] = own[start:stop]


def _add_maps(batch: Batch, maps: MapBatch) -> None:
    """Add the targets that are maps, their counts and weights to a batch."""
    batch.targets.update(maps.targets)
    batch.counts.update(maps.counts)
    batch.weights.update(maps.weights)
    batch.metric_weights.update(maps.metric_weights)
    batch.labelled.update(maps.labelled)


@dataclass(frozen=True)
class Batch:
    """Examples of one step, on the training device.

    Attributes:
        inputs: alias → raw inputs [B, *input_shape]; datasets without examples in this step are omitted.
        targets: task → labels [B] or [B, size], or of each pixel [B, H, W] or [B, C, H, W], for the tasks of the
            datasets in `inputs`.
        counts: task → number of labelled examples, or of labelled words or pixels (see `count_labels`), or with weights
            the sum of their weights in the loss, known on the host without synchronization. A task without any is in
            `targets` with the count 0, and has no part in the step.
        weights: task → weights of the examples in the loss, float32 [B], or of their words, [B, W], or pixels,
            [B, H, W], only for tasks with weights.
        metric_weights: task → their weights in the metrics, float32 [B], which don't include class weights, only for
            tasks with such weights.
        labelled: task → number of labelled examples or words whose weight in the metrics isn't 0, for tasks with
            weights, or of such images with a labelled pixel, for those with maps; for the others it is the count.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    counts: dict[str, float]
    weights: dict[str, Tensor] = field(default_factory=dict)
    metric_weights: dict[str, Tensor] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
