"""Metrics of predicted numbers: of regression, counts and quantiles.

Means over the examples, and ratios of such means, are computed in float64; Spearman's correlation without weights is
torchmetrics'.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.specs import is_labelled
from mtlcli.tasks.binary_metrics import import_torchmetrics
from mtlcli.tasks.collected_metrics import CollectedMetric, varies
from mtlcli.tasks.columns import Collected

EPSILON = torch.finfo(torch.float64).eps  # smallest denominator of a relative error, as in scikit-learn


class NumberColumns:
    """Numbers of a batch from which the metrics are computed.

    Args:
        values: predicted numbers in the target's units, [B] or [B, quantiles].
        target: labels, [B].
    """

    def __init__(self, values: Tensor, target: Tensor) -> None:
        self._values, self._target = values, target

    def labelled(self) -> Tensor:
        """Return the mask of the labelled examples, bool [B]."""
        return is_labelled(self._target)

    def value(self) -> Tensor:
        """Return the predictions, [B] or [B, quantiles]."""
        return self._values

    def label(self) -> Tensor:
        """Return the labels, [B]."""
        return self._target


def _pair(collected: Collected) -> tuple[Tensor, Tensor]:
    """Return predictions and labels in float64."""
    return collected["value"].double(), collected["label"].double()


def mean_absolute_error(collected: Collected) -> Tensor:
    """Compute the mean of |y − ŷ|."""
    value, label = _pair(collected)
    return collected.mean((value - label).abs())


def root_mean_squared_error(collected: Collected) -> Tensor:
    """Compute the root of the mean of (y − ŷ)²."""
    value, label = _pair(collected)
    return collected.mean((value - label).square()).sqrt()


def mean_absolute_percentage_error(collected: Collected) -> Tensor:
    """Compute the mean of |y − ŷ| / max(|y|, ε), a share (0.1 is 10 %); very large if a label is 0."""
    value, label = _pair(collected)
    return collected.mean((value - label).abs() / label.abs().clamp(min=EPSILON))


def pearson(collected: Collected) -> Tensor:
    """Compute Pearson's correlation; NaN if all labels or all predictions are equal, or a prediction is NaN."""
    return _correlation(*_pair(collected), collected)


def _correlation(value: Tensor, label: Tensor, collected: Collected) -> Tensor:
    if bool(value.isnan().any()) or not (varies(value) and varies(label)):
        return torch.tensor(torch.nan)
    value, label = value - collected.mean(value), label - collected.mean(label)
    scale = (collected.mean(value.square()) * collected.mean(label.square())).sqrt()
    return (collected.mean(value * label) / scale).clamp(-1.0, 1.0)


def weighted_ranks(values: Tensor, weight: Tensor) -> Tensor:
    """Compute ranks with weights: equal values have the mean rank of as many equal examples as their weights say.

    Args:
        values: values, [N].
        weight: weights, float64 [N].

    Returns:
        Ranks minus ½, float64 [N].
    """
    group = torch.unique(values, return_inverse=True)[1]
    sums = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, weight)
    return (sums.cumsum(0) - sums / 2)[group]


def spearman(collected: Collected) -> Tensor:
    """Compute Spearman's rank correlation; NaN if all labels or all predictions are equal, or a prediction is NaN."""
    value, label = _pair(collected)
    if bool(value.isnan().any()) or not (varies(value) and varies(label)):
        return torch.tensor(torch.nan)
    if collected.weight is not None:
        value, label = (weighted_ranks(values, collected.weight) for values in (value, label))
        return _correlation(value, label, collected)
    import_torchmetrics()
    from torchmetrics.functional.regression import spearman_corrcoef

    return spearman_corrcoef(value, label)


def half_deviances(value: Tensor, label: Tensor) -> Tensor:
    """Compute y log(y / μ) − y + μ of each example, half its Poisson deviance.

    Args:
        value: expected counts μ > 0, [B].
        label: counts y ≥ 0, [B].

    Returns:
        The half deviances, at least 0, [B].
    """
    return (
        torch.xlogy(label, label) - torch.xlogy(label, value) - label + value
    )  # the gradient is 1 − y / μ, at y = 0 too


def poisson_deviance(collected: Collected) -> Tensor:
    """Compute the mean Poisson deviance, 2 (y log(y / μ) − y + μ)."""
    return 2 * collected.mean(half_deviances(*_pair(collected)))


def poisson_d2(collected: Collected) -> Tensor:
    """Compute the share of the deviance of the mean label that is explained; NaN if all labels are equal."""
    value, label = _pair(collected)
    mean = collected.mean(label)
    explained, constant = half_deviances(value, label), half_deviances(mean, label)
    return _explained(collected.mean(explained), collected.mean(constant), label)


def poisson_nll(collected: Collected) -> Tensor:
    """Compute the mean negative log-likelihood, μ − y log μ + log y!."""
    value, label = _pair(collected)
    return collected.mean(value - torch.xlogy(label, value) + torch.lgamma(label + 1))


def _explained(loss: Tensor, constant: Tensor, label: Tensor) -> Tensor:
    """Compute 1 − mean loss / mean loss of the best constant; NaN if all labels are equal."""
    return 1 - loss / constant if varies(label) else torch.tensor(torch.nan)


def pinball(error: Tensor, levels: Tensor) -> Tensor:
    """Compute the quantile loss, max(τ e, (τ − 1) e).

    Args:
        error: errors e = y − ŷ, [B, quantiles].
        levels: levels τ of the quantiles, [quantiles].

    Returns:
        The losses, at least 0, [B, quantiles].
    """
    return torch.maximum(levels * error, (levels - 1) * error)


def _levels(collected: Collected) -> Tensor:
    """Return the levels τ of the quantiles, float64 [quantiles], from their names."""
    return torch.tensor([float(name) for name in collected.classes], dtype=torch.float64)


def pinball_by_quantile(collected: Collected) -> Tensor:
    """Compute the mean quantile loss of each quantile, [quantiles]."""
    value, label = _pair(collected)
    return collected.mean(pinball(label.unsqueeze(1) - value, _levels(collected)))


def pinball_d2(collected: Collected) -> Tensor:
    """Compute the share of the quantile loss of the labels' own quantiles that is explained, over all levels together.

    It is NaN if all labels are equal.

    References:
        Koenker and Machado, Goodness of fit and related inference processes for quantile regression, JASA 1999, eq. 7,
            for one level.

    Args:
        collected: the columns `value` and `label`.

    Returns:
        The share, at most 1.
    """
    _, label = _pair(collected)
    levels = _levels(collected)
    weights = None if collected.weight is None else collected.weight.numpy()
    constant = np.quantile(label.numpy(), levels.numpy(), method="inverted_cdf", weights=weights)  # minimizes the loss
    losses = pinball(label.unsqueeze(1) - torch.from_numpy(constant), levels)
    return _explained(pinball_by_quantile(collected).mean(), collected.mean(losses).mean(), label)


def coverage_error(collected: Collected) -> Tensor:
    """Compute the mean over the quantiles of |share of labels at or below the prediction − τ|."""
    value, label = _pair(collected)
    below = (label.unsqueeze(1) <= value).double().masked_fill(value.isnan(), torch.nan)
    return (collected.mean(below) - _levels(collected)).abs().mean()


PAIR = ("value", "label")
NUMBER_METRICS: dict[str, CollectedMetric] = {
    "spearman": CollectedMetric("max", PAIR, spearman),
    "mape": CollectedMetric("min", PAIR, mean_absolute_percentage_error),
}
"""Metrics of a predicted number, which every kind with one has."""

SCORE_METRICS: dict[str, CollectedMetric] = {
    "spearman": NUMBER_METRICS["spearman"],
    "pearson": CollectedMetric("max", PAIR, pearson),
    "mae": CollectedMetric("min", PAIR, mean_absolute_error),
    "rmse": CollectedMetric("min", PAIR, root_mean_squared_error),
}
"""Metrics of scores that are compared by their order."""

COUNT_METRICS: dict[str, CollectedMetric] = {
    "d2": CollectedMetric("max", PAIR, poisson_d2),
    "deviance": CollectedMetric("min", PAIR, poisson_deviance),
    "mae": CollectedMetric("min", PAIR, mean_absolute_error),
    "rmse": CollectedMetric("min", PAIR, root_mean_squared_error),
    "nll": CollectedMetric("min", PAIR, poisson_nll),
    **NUMBER_METRICS,
}
"""Metrics of predicted counts."""

QUANTILE_METRICS: dict[str, CollectedMetric] = {
    "d2": CollectedMetric("max", PAIR, pinball_d2),
    "pinball": CollectedMetric("min", PAIR, lambda collected: pinball_by_quantile(collected).mean()),
    "coverage_error": CollectedMetric("min", PAIR, coverage_error),
    "pinball_per_quantile": CollectedMetric("min", PAIR, pinball_by_quantile),
}
"""Metrics of predicted quantiles."""
