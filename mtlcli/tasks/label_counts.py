"""Exact counts of true and false positives and negatives, and the import of torchmetrics."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from lightning_utilities.core import imports
from torch import Tensor

from mtlcli.tasks import sample_weights

MISSING_LABEL = -1  # neither 0 nor 1: such an entry is not counted
UNUSED_PACKAGES = ("torchvision", "scipy", "matplotlib")  # by the metrics of this package


class LabelCounts:
    """Exact int64 counts per label, on the device, by torchmetrics' `MultilabelStatScores`; float64 sums of weights.

    The metrics of torchmetrics are float32 ratios (0.98760003 for 9876 of 10000), so only its counts are used. Classes
    are counted one-hot, which, unlike a confusion matrix, neither synchronizes with the device nor needs a
    non-deterministic kernel.

    Args:
        labels: number of labels L.
        device: device of the counts.
    """

    def __init__(self, labels: int, device: torch.device) -> None:
        import_torchmetrics()
        from torchmetrics.classification import MultilabelStatScores

        self._scores = MultilabelStatScores(labels, average=None, validate_args=False).to(device)
        self._weighted: Tensor | None = None

    def update(self, predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            predicted: predicted labels, bool [B, L].
            target: labels, integers [B, L]: 1, 0 or MISSING_LABEL.
            weight: weights of the examples, [B], by which they are counted.
        """
        if weight is None:
            self._scores.update(predicted.to(target.dtype), target)
        else:
            counts = sample_weights.count(predicted, target, weight)
            self._weighted = counts if self._weighted is None else self._weighted + counts

    def read(self) -> Tensor:
        """Return the counts, float64 [4, L] on the CPU: true and false positives, true and false negatives."""
        state = self._scores.metric_state
        counts = torch.stack([torch.as_tensor(state[name]) for name in ("tp", "fp", "tn", "fn")])
        counts = counts.cpu().to(torch.float64)
        return counts if self._weighted is None else counts + self._weighted.cpu()


def predict_positive(logits: Tensor, labels: Tensor) -> Tensor:
    """Predict the labels whose logits are above 0; a NaN counts as the wrong prediction, whatever the label.

    Args:
        logits: logits, of any shape.
        labels: labels of the same shape: 1, 0 or MISSING_LABEL.

    Returns:
        The predicted labels, bool of the same shape.
    """
    return torch.where(logits.isnan(), labels == 0, logits > 0)


def f1_scores(counts: Tensor) -> Tensor:
    """Compute the F1 score of each label, 2 tp / (2 tp + fp + fn).

    Args:
        counts: counts, [4, L], as returned by `LabelCounts.read`.

    Returns:
        Scores, [L]; NaN for a label that neither occurs nor is predicted.
    """
    tp, fp, fn = counts[0], counts[1], counts[3]
    return 2 * tp / (2 * tp + fp + fn)


def import_torchmetrics() -> None:
    """Import torchmetrics without the optional packages that it would import; call this before importing from it.

    The first import of torchmetrics imports torchvision, scipy.signal and pyplot if they are installed, which takes 2
    of its 2.2 seconds and most of its memory, and which no metric here needs. During this import they appear to be
    missing, to torchmetrics only. A program that also needs its image metrics or plots imports torchmetrics first.
    """
    with _without_unused_packages():
        import torchmetrics  # noqa: F401


@contextmanager
def _without_unused_packages() -> Iterator[None]:
    """Replace the module by which torchmetrics checks for optional packages with one that doesn't find them."""

    class RequirementCache(imports.RequirementCache):
        def __bool__(self) -> bool:
            return self.requirement not in UNUSED_PACKAGES and super().__bool__()

    def package_available(name: str, *options: Any) -> bool:
        return name not in UNUSED_PACKAGES and imports.package_available(name, *options)

    stub = ModuleType(imports.__name__)
    vars(stub).update({**vars(imports), "RequirementCache": RequirementCache, "package_available": package_available})
    sys.modules[imports.__name__] = stub
    try:
        yield
    finally:
        sys.modules[imports.__name__] = imports
