"""True and false positives and negatives, counted exactly; the ratios made of them are float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from lightning_utilities.core import imports
from torch import Tensor

MISSING = -1  # neither 0 nor 1: an entry that is counted nowhere


class Counts:
    """Counts per label, int64, on the device, by torchmetrics' `MultilabelStatScores`.

    Its own metrics are float32 ratios (0.98760003 for 9876 of 10000), so only its counts are used. Classes are counted
    one-hot: that neither waits for the device nor needs a non-deterministic kernel, as the confusion matrix does.
    """

    def __init__(self, labels: int, device: torch.device) -> None:
        import_torchmetrics()
        from torchmetrics.classification import MultilabelStatScores

        self._scores = MultilabelStatScores(labels, average=None, validate_args=False).to(device)

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """predicted: [B, labels] bool. target: [B, labels] integers: 1, 0 or MISSING."""
        self._scores.update(predicted.to(target.dtype), target)

    def read(self) -> Tensor:
        """[4, labels] float64 on the CPU: true positives, false positives, true negatives, false negatives."""
        state = self._scores.metric_state
        return torch.stack([torch.as_tensor(state[name]) for name in ("tp", "fp", "tn", "fn")]).cpu().to(torch.float64)


def is_yes(logits: Tensor, labels: Tensor) -> Tensor:
    """bool mask of the logits above 0. A NaN counts as the wrong answer, whatever the label: 0 or 1."""
    return torch.where(logits.isnan(), labels == 0, logits > 0)


def f1(counts: Tensor) -> Tensor:
    """F1 of each label, 2 tp / (2 tp + fp + fn); NaN for one that was neither there nor predicted. counts: [4, L]."""
    tp, fp, fn = counts[0], counts[1], counts[3]
    return 2 * tp / (2 * tp + fp + fn)


NOT_NEEDED = ("torchvision", "scipy", "matplotlib")


def import_torchmetrics() -> None:
    """Call this before any `from torchmetrics… import …`.

    The first import of torchmetrics loads torchvision, scipy.signal and pyplot where they are installed: 2 of its 2.2
    seconds and most of its memory, and no metric here needs them. So they are told missing while it is imported, to it
    alone; whoever wants its image metrics or plots as well imports torchmetrics first.
    """
    with _told_missing():
        import torchmetrics  # noqa: F401


@contextmanager
def _told_missing() -> Iterator[None]:
    package_available = imports.package_available

    class Cache(imports.RequirementCache):
        def __bool__(self) -> bool:
            return self.requirement not in NOT_NEEDED and super().__bool__()

    def available(name: str, *rest: Any) -> bool:
        return name not in NOT_NEEDED and package_available(name, *rest)

    with patch.multiple(imports, RequirementCache=Cache, package_available=available):
        yield
