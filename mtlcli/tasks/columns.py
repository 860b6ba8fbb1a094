"""Numbers of each example, by column, from which metrics are computed at the end of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mtlcli.tasks.binary_metrics import MISSING_LABEL, predict_positive


class Columns(Protocol):
    """Numbers of a batch from which metrics are computed, by a method for each column, which returns [B, …].

    The columns of a kind with several labels for each example, such as one for each word, are [B · L, …].
    """

    def labelled(self) -> Tensor:
        """Return the mask of the labelled examples, bool [B]."""


class ClassColumns:
    """Numbers of a batch from which the metrics of classes are computed.

    Args:
        log_probabilities: logarithms of the probabilities of the classes, [B, classes].
        predicted: indices of the predicted classes, int64 [B]; −1 for a prediction that is NaN.
        labels: indices of the classes, int64 [B]; negative if missing.
        positive: index of the positive class, whose probability is calibrated; None: the most probable class.
    """

    def __init__(self, log_probabilities: Tensor, predicted: Tensor, labels: Tensor, positive: int | None) -> None:
        self._log_probabilities, self._predicted, self._labels = log_probabilities, predicted, labels
        self._positive = positive

    def labelled(self) -> Tensor:
        """Return the mask of the labelled examples, bool [B]."""
        return self._labels >= 0

    def label(self) -> Tensor:
        """Return the indices of the classes, int64 [B]."""
        return self._labels

    def predicted(self) -> Tensor:
        """Return the indices of the predicted classes, int64 [B]."""
        return self._predicted

    def log_probability(self) -> Tensor:
        """Return the logarithm of the probability of each label, [B]."""
        return self._log_probabilities.gather(1, self._labels.clamp(min=0).unsqueeze(1)).squeeze(1)

    def confidence(self) -> Tensor:
        """Return the probability of the positive class, or that of the most probable one, [B]."""
        if self._positive is not None:
            return self._log_probabilities[:, self._positive].exp()
        return self._log_probabilities.amax(1).exp()

    def correct(self) -> Tensor:
        """Return whether the label is the class that `confidence` is the probability of, bool [B]."""
        if self._positive is not None:
            return self._labels == self._positive
        return self._log_probabilities.argmax(1) == self._labels

    def log_odds(self) -> Tensor:
        """Return the logarithms of the odds p / (1 − p) of the classes, [B, classes]."""
        return self._log_probabilities - (-self._log_probabilities.expm1()).log()


class LabelColumns:
    """Numbers of a batch from which the metrics of labels are computed.

    Args:
        logits: logits, [B, labels].
        target: labels, 0/1 [B, labels]; NaN if missing.
    """

    def __init__(self, logits: Tensor, target: Tensor) -> None:
        self._logits = logits
        self._labels = target.nan_to_num(nan=MISSING_LABEL).to(torch.int8)

    def labelled(self) -> Tensor:
        """Return the mask of the examples with a label, bool [B]."""
        return (self._labels != MISSING_LABEL).any(1)

    def labels(self) -> Tensor:
        """Return the labels, int8 [B, labels]: 1, 0 or MISSING_LABEL."""
        return self._labels

    def predicted(self) -> Tensor:
        """Return the predicted labels, bool [B, labels]."""
        return predict_positive(self._logits, self._labels)

    def logits(self) -> Tensor:
        """Return the logits, [B, labels]."""
        return self._logits


@dataclass(frozen=True)
class Collected:
    """Numbers of all labelled examples of a split, on the CPU.

    Attributes:
        columns: name → [N] or [N, size], one of the numbers that a kind derives from predictions and labels.
        weight: weights of the examples, float64 [N]; None for equal weights.
        classes: names of the classes, labels or quantiles.
        positive: index of the positive class, for a kind that distinguishes one; otherwise None.
    """

    columns: Mapping[str, Tensor]
    weight: Tensor | None
    classes: Sequence[str] = ()
    positive: int | None = None

    @property
    def size(self) -> int:
        """Number of classes, labels or quantiles."""
        return len(self.classes)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def mean(self, values: Tensor) -> Tensor:
        """Compute the mean of a number of each example, weighted if there are weights, in float64.

        Args:
            values: numbers, [N] or [N, size].

        Returns:
            The mean, 0-d or [size].
        """
        values = values.double()
        if self.weight is None:
            return values.mean(0)
        weight = self.weight if values.ndim == 1 else self.weight.unsqueeze(1)
        return (values * weight).sum(0) / self.weight.sum()


class ColumnCollector:
    """Columns of all labelled examples of a split, which are kept on the device, batch by batch.

    Args:
        names: the columns to keep.
        columns: function: predictions [B, outputs] and labels [B, …] → columns.
        classes: names of the classes, labels or quantiles.
        positive: name of the positive class, for a kind that distinguishes one.
    """

    def __init__(
        self,
        names: Iterable[str],
        columns: Callable[[Tensor, Tensor], Columns],
        classes: Sequence[str],
        positive: str | None = None,
    ) -> None:
        self._columns = columns
        self._classes = list(classes)
        self._positive = None if positive is None else self._classes.index(positive)
        self._kept: dict[str, list[Tensor]] = {name: [] for name in ("labelled", *names)}
        self._weights: list[Tensor] = []

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: predictions, [B, outputs].
            target: labels, [B] or [B, size].
            weight: weights of the examples, [B], in all batches or in none.
        """
        columns = self._columns(prediction, target)
        for name, batches in self._kept.items():
            batches.append(getattr(columns, name)())
        if weight is not None:
            rows = len(self._kept["labelled"][-1])  # the columns of words have a row for each word of an example
            self._weights.append(weight if rows == len(weight) else weight.repeat_interleave(rows // len(weight)))

    def collect(self) -> Collected | None:
        """Return the columns of the labelled examples whose weight isn't 0; None if there are none."""
        kept = {name: torch.cat(batches).cpu() for name, batches in self._kept.items() if batches}
        weight = torch.cat(self._weights).cpu().double() if self._weights else None
        rows = kept.pop("labelled", torch.zeros(0, dtype=torch.bool))
        if weight is not None:
            rows = rows & (weight > 0)
        if not rows.any():
            return None
        weight = None if weight is None else weight[rows]
        return Collected({name: values[rows] for name, values in kept.items()}, weight, self._classes, self._positive)


def calibrated_labels(collected: Collected) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the probabilities of all labels that aren't missing, whether they are 1, and their weights, [N] each."""
    mask = collected["labels"] != MISSING_LABEL
    weight = None if collected.weight is None else collected.weight.unsqueeze(1).expand(mask.shape)[mask]
    return collected["logits"].double().sigmoid()[mask], collected["labels"][mask] == 1, weight


def in_float64(tensor: Tensor) -> Tensor:
    """Convert a tensor to float64; to float32 on MPS, which has no float64."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()
