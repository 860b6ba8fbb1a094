"""Metrics on bootstrap samples of the examples of a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.examples import concat_labels
from mtlcli.specs import has_label
from mtlcli.tasks.base import TaskKind
from mtlcli.tasks.summed_metrics import SummedMetrics

MIN_RESAMPLES, MAX_RESAMPLES = 50, 200
LABEL_BUDGET = 4_000_000  # labels in all resamples together; large splits have fewer resamples
MAX_KEPT = 2**26  # numbers kept of a task: 256 MiB of predictions

Replicates = dict[str, dict[str, list[float]]]  # task → metric → its value on each resample


class OutputCollector:
    """Predictions and targets of all labelled examples of a split, collected batch by batch.

    Of a task with labels of pixels, the numbers of each image are collected from whose sums the metrics are computed. A
    task with more than `MAX_KEPT` numbers in its predictions, or in these, is dropped, so that memory is bounded.

    Args:
        kinds: task → kind.
    """

    def __init__(self, kinds: Mapping[str, TaskKind]) -> None:
        self._kinds = kinds
        self._summed = {
            task: metrics
            for task, kind in kinds.items()
            if kind.target.is_map and isinstance(metrics := kind.create_metrics(torch.device("cpu")), SummedMetrics)
        }
        self._batches: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._numbers: dict[str, list[dict[str, Tensor]]] = {}
        self._weights: dict[str, list[Tensor]] = {}
        self._sizes: dict[str, int] = {}

    def receive(self, task: str, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            task: the task.
            prediction: output of its head, [B, outputs] or [B, outputs, H, W].
            target: its labels, [B], [B, size] or [B, …, H, W].
            weight: weights of the examples, [B]; those of weight 0 are dropped.
        """
        rows = has_label(target) if weight is None else has_label(target) & (weight > 0)
        if task in self._summed:
            numbers = self._summed[task].of_images(prediction, target)
            if self._count(task, sum(values.numel() for values in numbers.values())):
                self._numbers.setdefault(task, []).append({name: x[rows].cpu() for name, x in numbers.items()})
        elif self._count(task, prediction.numel()):
            self._batches.setdefault(task, []).append((prediction[rows].cpu(), target[rows].cpu()))
        else:
            return
        if weight is not None:
            self._weights.setdefault(task, []).append(weight[rows].cpu())

    def _count(self, task: str, amount: int) -> bool:
        """Add to the numbers of a task, and drop all of them if there are too many. False if they are dropped."""
        self._sizes[task] = self._sizes.get(task, 0) + amount
        kept = self._sizes[task] <= MAX_KEPT
        if not kept:
            self._batches.pop(task, None)
            self._numbers.pop(task, None)
        return kept

    def get(self, task: str) -> tuple[Tensor, Tensor] | None:
        """Return the collected outputs of a task.

        Args:
            task: the task.

        Returns:
            Predictions [n, outputs] and targets [n] or [n, size]; None if nothing was kept. Those of sequences are
            padded to the longest.
        """
        batches = self._batches.get(task)
        if not batches:
            return None
        predictions, targets = zip(*batches, strict=True)
        return _concat(predictions), concat_labels(targets)

    def weights(self, task: str) -> Tensor | None:
        """Return the weights of the collected examples, [n]; None if they have none."""
        return torch.cat(self._weights[task]) if task in self._weights else None

    def images(self, task: str) -> tuple[SummedMetrics, dict[str, Tensor]] | None:
        """Return the collected numbers of the images of a task with labels of pixels.

        Args:
            task: the task.

        Returns:
            The metrics and their numbers, name → [n, …]; None if nothing was kept.
        """
        batches = self._numbers.get(task)
        if not batches:
            return None
        return self._summed[task], {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _concat(predictions: Sequence[Tensor]) -> Tensor:
    """Concatenate predictions, of sequences of different lengths too."""
    if predictions[0].ndim == 3:
        longest = max(x.shape[1] for x in predictions)
        predictions = [torch.nn.functional.pad(x, (0, 0, 0, longest - x.shape[1])) for x in predictions]
    return torch.cat(list(predictions))


def resample_metrics(
    kinds: Mapping[str, TaskKind], outputs: OutputCollector, resamples: int | None = None
) -> Replicates:
    """Compute all metrics on bootstrap samples of the examples (n of n, with replacement).

    The samples depend on n alone. Runs that are evaluated on the same examples in the same order therefore have the
    same samples, as have tasks on the same examples, and differences of the values are paired. Of labels of pixels,
    whole images are drawn, since the pixels of an image depend on each other.

    Args:
        kinds: task → kind.
        outputs: predictions and targets.
        resamples: number of samples; by default 200, or fewer for large splits.

    Returns:
        task → metric → its value on each sample; tasks without collected outputs are missing.
    """
    replicates: Replicates = {}
    for task, kind in kinds.items():
        weight = outputs.weights(task)
        if (images := outputs.images(task)) is not None:
            values = _resample_images(*images, weight, resamples or MAX_RESAMPLES)
        elif (kept := outputs.get(task)) is not None:
            values = _resample_examples(kind, *kept, weight, resamples)
        else:
            continue
        replicates[task] = {name: [of_sample[name] for of_sample in values] for name in values[0]}
    return replicates


def _resample_examples(
    kind: TaskKind, prediction: Tensor, target: Tensor, weight: Tensor | None, resamples: int | None
) -> list[dict[str, float]]:
    amount = resamples or min(MAX_RESAMPLES, max(MIN_RESAMPLES, LABEL_BUDGET // target.numel()))
    values = []
    for rows in _draw_samples(len(target), amount):
        metrics = kind.create_metrics(torch.device("cpu"))
        metrics.update(prediction[rows], target[rows], *(() if weight is None else (weight[rows],)))
        values.append(metrics.compute())
    return values


def _resample_images(
    metrics: SummedMetrics, numbers: Mapping[str, Tensor], weight: Tensor | None, resamples: int
) -> list[dict[str, float]]:
    """Compute the metrics from sums over the images, each as often as it is in the sample."""
    amount = len(next(iter(numbers.values())))
    drawn = torch.stack([torch.bincount(rows, minlength=amount) for rows in _draw_samples(amount, resamples)]).double()
    return metrics.compute_samples(numbers, drawn if weight is None else drawn * weight.double())


def _draw_samples(amount: int, resamples: int) -> Iterator[Tensor]:
    """Yield the positions of the examples of each sample, int64 [amount]."""
    generator = np.random.default_rng(amount)
    for _ in range(resamples):
        yield torch.from_numpy(generator.integers(amount, size=amount))
