"""Uncertainty of metrics that comes from the evaluated examples: the bootstrap over examples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.feed import is_labelled
from mtlcli.tasks.kind import TaskKind

FEWEST, MOST = 50, 200  # resamples
BUDGET = 4_000_000  # labels in all resamples together; large sets get fewer resamples
LARGEST = 2**26  # numbers that are kept of one task: 256 MiB of predictions

Replicates = dict[str, dict[str, list[float]]]  # task → metric → its value on each resample


class Outputs:
    """Predictions and targets of all labelled examples of a split, collected batch by batch.

    A task whose predictions exceed `LARGEST` numbers is given up, so that memory stays bounded.
    """

    def __init__(self) -> None:
        self._batches: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._sizes: dict[str, int] = {}

    def receive(self, task: str, prediction: Tensor, target: Tensor) -> None:
        """Add a batch: prediction [B, outputs], target [B] or [B, size]."""
        rows = is_labelled(target)
        self._sizes[task] = self._sizes.get(task, 0) + prediction.numel()
        batches = self._batches.setdefault(task, [])
        if self._sizes[task] <= LARGEST:
            batches.append((prediction[rows].cpu(), target[rows].cpu()))
        else:
            batches.clear()

    def of(self, task: str) -> tuple[Tensor, Tensor] | None:
        """Predictions [n, outputs] and targets [n] or [n, size] of a task; None where nothing was kept."""
        batches = self._batches.get(task)
        if not batches:
            return None
        predictions, targets = zip(*batches, strict=True)
        return torch.cat(predictions), torch.cat(targets)


def replicates(kinds: Mapping[str, TaskKind], outputs: Outputs, resamples: int | None = None) -> Replicates:
    """Values of every metric on bootstrap samples of the examples (n out of n, with replacement).

    resamples: how many; None: 200, or fewer of large sets. The draws depend on n alone. Runs that are evaluated on the
    same examples in the same order therefore have the same resamples, and so do tasks on the same examples: differences
    of replicates are paired.
    """
    found: Replicates = {}
    for task, kind in kinds.items():
        if (kept := outputs.of(task)) is None:
            continue
        prediction, target = kept
        draws = np.random.default_rng(len(target))
        values: dict[str, list[float]] = {}
        for _ in range(resamples or min(MOST, max(FEWEST, BUDGET // target.numel()))):
            rows = torch.from_numpy(draws.integers(len(target), size=len(target)))
            metrics = kind.metrics(torch.device("cpu"))
            metrics.update(prediction[rows], target[rows])
            for name, value in metrics.compute().items():
                values.setdefault(name, []).append(value)
        found[task] = values
    return found
