"""Batches of a dataset whose targets are maps: inputs and maps take one route to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.batch_stream import Request, Stream
from mtlcli.data.example_weights import LabelWeights
from mtlcli.data.examples import Examples, LazyInputs, describe_read_error, wrap_read_errors
from mtlcli.data.map_counts import PixelCounter, PixelCounts, expand_maps, pixel_weights, weigh_classes
from mtlcli.data.placement import Placement, make_gather
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import MtlError
from mtlcli.specs import TargetSpec

MapTasks = Mapping[str, tuple[str, TargetSpec]]  # task → name and specification of its target, a map


@dataclass(frozen=True)
class JointBatch:
    """Inputs and maps of the same examples.

    Attributes:
        inputs: [B, *input_shape].
        maps: target → maps as they are stored, [B, …].
        counts: numbers of labelled pixels, on the host.
    """

    inputs: Tensor
    maps: dict[str, Tensor]
    counts: PixelCounts

    def pin_memory(self) -> JointBatch:
        """Copy the batch to page-locked memory; the `DataLoader` calls it."""
        maps = {target: stored.pin_memory() for target, stored in self.maps.items()}
        return replace(self, inputs=self.inputs.pin_memory(), maps=maps)

    def to(self, device: torch.device, non_blocking: bool = False) -> JointBatch:
        """Move the batch to a device, as `Tensor.to`."""
        maps = {target: stored.to(device, non_blocking=non_blocking) for target, stored in self.maps.items()}
        return replace(self, inputs=self.inputs.to(device, non_blocking=non_blocking), maps=maps)


@dataclass(frozen=True)
class MapBatch:
    """Content of a `Batch` for the tasks whose targets are maps; see there."""

    targets: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    metric_weights: dict[str, Tensor] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)


class JointReader(Dataset[JointBatch | MtlError]):
    """Map from a request to a `JointBatch`, which runs in the workers; see `InputReader`.

    Args:
        inputs: [N, *input_shape], in memory or lazy.
        maps: target → maps as they are stored, [N, …], in memory or lazy.
        counter: counts the labelled pixels.
        augmentation: transforms of each example and its maps, or None.
    """

    def __init__(
        self,
        inputs: Tensor | LazyInputs,
        maps: Mapping[str, Tensor | LazyInputs],
        counter: PixelCounter,
        augmentation: Augmentation | None,
    ) -> None:
        self.inputs, self.maps, self.counter, self.augmentation = inputs, maps, counter, augmentation

    def __getitem__(self, request: Request) -> JointBatch | MtlError:
        try:
            return self._batch(*request)
        except MtlError as error:
            return error
        except Exception as error:  # of the dataset's own code
            return MtlError(describe_read_error(error))

    def _batch(self, rows: list[int], passes: list[int]) -> JointBatch:
        examples: list[Tensor] = [self.inputs[row] for row in rows]
        maps = [{target: source[row] for target, source in self.maps.items()} for row in rows]
        if self.augmentation is not None:
            examples, maps = self.augmentation(examples, passes, rows, maps)
        stacked = {target: torch.stack([of_example[target] for of_example in maps]) for target in self.maps}
        return JointBatch(torch.stack(examples), stacked, self.counter.count(stacked, rows))


class MapOrder:
    """Inputs and maps of a dataset in the order of one epoch.

    Args:
        tasks: the tasks whose targets are maps.
        fetch: function that returns positions [start, stop) of the epoch, on the device.
        weights: weights of the examples in the order of the epoch, float32 [amount], on the host and on the device;
            None for equal ones.
        class_weights: task → weights of the classes, float32 [K], on the host and on the device.
    """

    def __init__(
        self,
        tasks: MapTasks,
        fetch: Callable[[int, int], JointBatch],
        weights: tuple[Tensor, Tensor] | None,
        class_weights: Mapping[str, tuple[Tensor, Tensor]],
    ) -> None:
        self.tasks, self._fetch, self.weights, self.class_weights = tasks, fetch, weights, class_weights
        self._batch: JointBatch | None = None

    def fetch(self, start: int, stop: int) -> Tensor:
        """Return the inputs of positions [start, stop), and keep their maps for `take`."""
        self._batch = self._fetch(start, stop)
        return self._batch.inputs

    def take(self, start: int, stop: int) -> MapBatch:
        """Return the targets, numbers and weights of the positions that were fetched last.

        Args:
            start: first position.
            stop: end of the positions.

        Returns:
            The content of the batch.
        """
        assert self._batch is not None
        joint, self._batch, batch = self._batch, None, MapBatch()
        expanded = expand_maps(joint.maps, dict(self.tasks.values()))
        for task, (target, _) in self.tasks.items():
            labels = batch.targets[task] = expanded[target]
            labelled = joint.counts.labelled[target]
            batch.counts[task], batch.labelled[task] = int(labelled.sum()), int((labelled > 0).sum())
            if self.weights is None and task not in self.class_weights:
                continue
            amounts, weights = labelled.astype(np.float64), torch.ones((), device=labels.device)
            if task in self.class_weights:
                of_classes, on_device = self.class_weights[task]
                amounts = weigh_classes(joint.counts.classes[target], of_classes)
                weights = pixel_weights(labels, on_device)
            if self.weights is not None:
                own, on_device = self.weights[0][start:stop], self.weights[1][start:stop]
                amounts = amounts * own.double().numpy()
                batch.labelled[task] = int(((labelled > 0) & (own > 0).numpy()).sum())
                weights = weights * on_device.view(-1, *[1] * (weights.ndim - 1))
                batch.metric_weights[task] = on_device
            batch.counts[task] = float(amounts.sum())
            batch.weights[task] = weights
        return batch


class MapSource:
    """Inputs and maps of a dataset: resident on the device together, or read together by the workers of a stream.

    Args:
        alias: alias of the dataset.
        examples: examples of one split.
        tasks: the tasks whose targets are maps.
        placement: device, and route of inputs and maps to it.
        augmentation: transforms of each example and its maps, or None.
        class_weights: task → weight of each class in the loss, [K], for tasks with such weights.

    Attributes:
        resident: whether inputs and maps are on the device.
    """

    def __init__(
        self,
        alias: str,
        examples: Examples,
        tasks: MapTasks,
        placement: Placement,
        augmentation: Augmentation | None,
        class_weights: Mapping[str, LabelWeights],
    ) -> None:
        device = placement.device
        self.alias, self.tasks, self.device = alias, tasks, device
        self.augmentation = augmentation
        factors = {
            task: weights.to(torch.float32)
            for task, weights in class_weights.items()
            if task in tasks and isinstance(weights, Tensor)
        }
        self._class_weights = {task: (weights, weights.to(device)) for task, weights in factors.items()}
        self._weights = None if examples.weights is None else (examples.weights, examples.weights.to(device))
        targets = dict(tasks.values())
        counter = PixelCounter(targets, list(dict.fromkeys(tasks[task][0] for task in factors)))
        sources = [examples.inputs, *(examples.maps[target] for target in targets)]
        self._stream: Stream | None = None
        with wrap_read_errors(alias):
            placed = placement.resident_group(sources) if augmentation is None else None
            if placed is not None:
                self._inputs, self._maps = placed[0], dict(zip(targets, placed[1:], strict=True))
                self._counts = placement.remember(
                    (*map(id, sources), *counter.weighted), lambda: counter.count_all(self._maps)
                )
            else:
                inputs, *maps = sources if augmentation is None else placement.group_in_memory(sources)
                reader = JointReader(inputs, dict(zip(targets, maps, strict=True)), counter, augmentation)
                self._stream = Stream(reader, device, placement.workers)

    @property
    def resident(self) -> bool:
        """True if inputs and maps are on the device."""
        return self._stream is None

    def order(self, rows: Rows, on_device: Tensor, requests: Iterable[Request]) -> MapOrder:
        """Return the examples in the order of an epoch.

        Args:
            rows: the rows in this order, int64 [amount].
            on_device: the same on the device.
            requests: requests of the batches of a stream, in the order in which they will be fetched.

        Returns:
            The examples.
        """
        weights = None
        if self._weights is not None:
            host, placed = self._weights
            weights = host[torch.from_numpy(rows)], placed.index_select(0, on_device)
        fetch = self._gather(rows, on_device) if self._stream is None else self._read(self._stream, requests)
        return MapOrder(self.tasks, fetch, weights, self._class_weights)

    def _gather(self, rows: Rows, on_device: Tensor) -> Callable[[int, int], JointBatch]:
        inputs = make_gather(self._inputs, on_device)
        maps = {target: make_gather(stored, on_device) for target, stored in self._maps.items()}
        counts = self._counts.order(rows)

        def fetch(start: int, stop: int) -> JointBatch:
            gathered = {target: gather(start, stop) for target, gather in maps.items()}
            return JointBatch(inputs(start, stop), gathered, counts.select(start, stop))

        return fetch

    def _read(self, stream: Stream, requests: Iterable[Request]) -> Callable[[int, int], JointBatch]:
        next_batch = stream.batches(requests)
        alias = self.alias

        def fetch(start: int, stop: int) -> JointBatch:
            with wrap_read_errors(alias):
                batch: JointBatch = next_batch()
                return batch

        return fetch
