"""Classification into ordered classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mtlcli.errors import suggest
from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction, Metrics, TaskKind, masked_mean
from mtlcli.tasks.class_metrics import PREDICTED_CLASS_METRICS, RANK_METRICS
from mtlcli.tasks.collected_metrics import CollectedMetric, bounded_metrics
from mtlcli.tasks.columns import ClassColumns
from mtlcli.tasks.decoding import Decoded, decode_classes
from mtlcli.tasks.sample_weights import weighted_mean


@kinds.register("ordinal")
class Ordinal(TaskKind):
    """Classification into ordered classes, by CORN. Metrics: qwk, accuracy, mae.

    Predictions are logits [B, classes − 1]; targets are class indices [B]. Logit k is that of the conditional
    probability f_k = P(y > r_k | y > r_{k−1}) that the class is above rank k, given that it is above the rank below.
    By the chain rule P(y > r_k) = f_1 ⋯ f_k, which decreases with k for any logits, without the shared weights of CORAL
    or the sorted thresholds of cumulative logits. The probability of a class is the difference of two of these. The
    predicted class is the one above all ranks with P(y > r_k) > 0.5: the median of the distribution, which need not be
    its most probable class.

    The loss is the mean over the examples of the binary cross-entropies of their conditional probabilities: for an
    example, those of the ranks up to its class (the paper's conditional training subsets). Deviation: the paper divides
    the sum by the number of these terms, this loss by the number of examples. So every example has the same weight in
    any batch, and the loss is the negative log-likelihood of the class.

    `qwk` (the primary metric) is Cohen's kappa with quadratic weights, `accuracy` the share of the examples whose class
    is predicted, and `mae` the mean distance of the predicted class from the label, in ranks.

    References:
        Shi, Cao and Raschka, Deep neural networks for rank-consistent ordinal regression based on conditional
            probabilities, Pattern Analysis and Applications 2023, arXiv 2111.08851.

    Args:
        target: the target, of type `classes`, whose classes are in order unless `order` is set.
        order: names of all classes from the lowest to the highest; null: in the order of the target, which for the
            names in a table is alphabetical unless its dataset sets another.

    Raises:
        ValueError: if `order` doesn't contain every class of the target exactly once.
    """

    accepts = ("classes",)
    weighs_classes = True
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "qwk": "max", "accuracy": "max", "mae": "min"}
    collected: ClassVar[Mapping[str, CollectedMetric]] = RANK_METRICS | PREDICTED_CLASS_METRICS
    bounded: ClassVar[frozenset[str]] = bounded_metrics(RANK_METRICS | PREDICTED_CLASS_METRICS)
    probabilities = "conditional_sigmoid"
    primary = "qwk"

    def __init__(
        self,
        target: TargetSpec,
        *,
        order: Annotated[list[str | int | float | bool], Field(min_length=2)] | None = None,
    ) -> None:
        super().__init__(target)
        if target.size < 2:
            raise ValueError("an ordinal target needs at least 2 classes, and this one has 1")
        self.outputs = target.size - 1
        self._ordered = target.class_names if order is None else _check_order(order, target.class_names)
        self._ranks = [self._ordered.index(name) for name in target.class_names]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, from the lowest to the highest."""
        return self._ordered

    @property
    def chance_loss(self) -> float | None:
        """The logarithm of the number of classes; see `TaskKind.chance_loss`."""
        return math.log(self.outputs + 1)

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean sum of the conditional cross-entropies over the labelled examples; see `TaskKind.loss`."""
        ranks = self._rank_of(target)
        mask = (ranks >= 0) if weight is None else (ranks >= 0) & (weight > 0)
        # the prediction of an unlabelled row, even if infinite, doesn't reach the gradient
        prediction = prediction.float().masked_fill(~mask.unsqueeze(1), 0.0)
        thresholds = torch.arange(self.outputs, device=prediction.device)
        above = ranks.unsqueeze(1) > thresholds
        conditional = ranks.unsqueeze(1) >= thresholds  # the examples of the conditional training subset
        terms = F.binary_cross_entropy_with_logits(prediction, above.float(), reduction="none")
        losses = terms.masked_fill(~conditional, 0.0).sum(1)
        return masked_mean(losses, mask) if weight is None else weighted_mean(losses, mask, weight)

    def metrics(self, device: torch.device) -> Metrics:
        """Create the metrics quadratic weighted kappa, accuracy and mean absolute error in ranks."""
        return self.collect([name for name in self.directions if name != "loss"])

    def columns(self, prediction: Tensor, target: Tensor) -> ClassColumns:
        """Return the numbers of a batch from which metrics are computed."""
        logits = at_least_float32(prediction)
        return ClassColumns(log_probabilities(logits), predicted_rank(logits), self._rank_of(target), None)

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the predicted classes and the probabilities, in the order of the classes; see `TaskKind.decode`."""
        logits = at_least_float32(outputs)
        return decode_classes(log_probabilities(logits).exp(), predicted_rank(logits).clamp(min=0), self._ordered)

    def _rank_of(self, target: Tensor) -> Tensor:
        """Return the rank of each label, int64 [B], −1 if it is missing. target: class indices, [B]."""
        mask = is_labelled(target)
        if self._ordered == self.target.class_names:
            return target.masked_fill(~mask, -1)
        ranks = torch.tensor(self._ranks, device=target.device)
        return ranks.gather(0, target.masked_fill(~mask, 0)).masked_fill(~mask, -1)


def log_probabilities(logits: Tensor) -> Tensor:
    """Compute the logarithms of the probabilities of the classes, Σ_{j<k} log f_j + log(1 − f_k).

    Args:
        logits: logits of the conditional probabilities f, [B, classes − 1].

    Returns:
        The logarithms, [B, classes], from the lowest class to the highest.
    """
    zero = torch.zeros_like(logits[:, :1])
    above = torch.cat([zero, F.logsigmoid(logits).cumsum(1)], 1)
    return above + torch.cat([F.logsigmoid(-logits), zero], 1)


def predicted_rank(logits: Tensor) -> Tensor:
    """Compute the number of ranks with P(y > r_k) > 0.5.

    Args:
        logits: logits of the conditional probabilities, [B, classes − 1].

    Returns:
        The ranks of the predicted classes, int64 [B]; −1 if a logit is NaN.
    """
    ranks = (logits.sigmoid().cumprod(1) > 0.5).sum(1)
    return ranks.masked_fill(logits.isnan().any(1), -1)


def _spell(name: str | float, names: tuple[str, ...]) -> str:
    """Return an entry of the option `order` as the name of a class: YAML reads `1.0` and `true` as other types."""
    spellings = [str(name), str(name).lower(), f"{name:g}" if isinstance(name, float) else str(name)]
    return next((spelling for spelling in spellings if spelling in names), str(name))


def _check_order(order: list[str | int | float | bool], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the option `order` as names of classes."""
    ordered = tuple(_spell(name, names) for name in order)
    if unknown := [name for name in ordered if name not in names]:
        hint = suggest(unknown[0], names)
        raise ValueError(f"`order`: the target has no class {unknown[0]!r}.{hint} Its classes: {', '.join(names)}")
    if repeated := [name for name in ordered if ordered.count(name) > 1]:
        raise ValueError(f"`order` contains the class {repeated[0]!r} twice")
    if missing := [name for name in names if name not in ordered]:
        raise ValueError(f"`order` doesn't contain the class {missing[0]!r}; it needs all of: {', '.join(names)}")
    return ordered
