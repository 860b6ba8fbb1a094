"""Metrics of a tag for each word."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mtlcli.tasks.class_metrics import COUNTED, COUNTS, PREDICTED_CLASS_METRICS, macro
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import ClassColumns, Collected, in_float64
from mtlcli.tasks.entities import TagScheme, count_entities

ENTITIES = (*COUNTS, "starts")
WORD_METRICS = {name: PREDICTED_CLASS_METRICS[name] for name in ("accuracy", "log_loss", "calibration_error")}

TAG_METRICS: dict[str, CollectedMetric] = {
    **WORD_METRICS,
    **{name: CollectedMetric("max", COUNTS, macro(function)) for name, function in COUNTED.items()},
    **{f"{name}_per_tag": CollectedMetric("max", COUNTS, function) for name, function in COUNTED.items()},
}
"""Metrics of tags in no particular form, such as parts of speech."""


def entity_metrics(scheme: TagScheme) -> Mapping[str, CollectedMetric]:
    """Return the metrics of tags that mark entities.

    Args:
        scheme: the scheme of the tags.

    Returns:
        Name → metric.
    """
    metrics = dict(WORD_METRICS)
    for name in COUNTED:
        metrics[name] = CollectedMetric("max", ENTITIES, _micro(name, scheme))
        metrics[f"{name}_per_entity"] = CollectedMetric("max", ENTITIES, _by_type(name, scheme))
    return metrics


def _count(scheme: TagScheme, collected: Collected) -> tuple[Tensor, Tensor, Tensor]:
    labels, predicted, starts = (collected[name] for name in ENTITIES)
    return count_entities(scheme, labels, predicted, starts, collected.weight)


def _ratio(metric: str, right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Compute precision, recall or F1 from counts; 0/0 is 0, as in seqeval."""
    if metric == "f1":
        return (2 * right / (predicted + true)).nan_to_num()
    return (right / (predicted if metric == "precision" else true)).nan_to_num()


def _micro(metric: str, scheme: TagScheme) -> Callable[[Collected], Tensor]:
    """Make the metric of the entities of all types together."""
    return lambda collected: _ratio(metric, *(counts.sum() for counts in _count(scheme, collected)))


def _by_type(metric: str, scheme: TagScheme) -> Callable[[Collected], Tensor]:
    """Make the metric of each type, [types]; NaN for one that neither occurs nor is predicted."""

    def compute(collected: Collected) -> Tensor:
        right, predicted, true = _count(scheme, collected)
        return _ratio(metric, right, predicted, true).masked_fill(predicted + true == 0, torch.nan)

    return compute


class WordColumns(ClassColumns):
    """Numbers of the words of a batch, from which metrics are computed; each column is [B · L].

    Args:
        logits: logits of the tags, [B, L, tags].
        labels: tags, int64 [B, L]; negative if missing.
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        flat = in_float64(logits).flatten(0, 1)
        predicted = flat.argmax(1).masked_fill(flat.isnan().any(1), -1)
        super().__init__(flat.log_softmax(1), predicted, labels.flatten(), None)
        labelled = labels >= 0
        self._starts = labelled & (labelled.cumsum(1) == 1)

    def starts(self) -> Tensor:
        """Return whether a word is the first of its sentence that has a label, bool [B · L]."""
        return self._starts.flatten()
