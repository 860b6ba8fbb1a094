"""A class for each word of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mtlcli.metric_names import FAMILY, metric_directions
from mtlcli.registry import kinds
from mtlcli.specs import IGNORE_INDEX, TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction, TaskKind, masked_mean
from mtlcli.tasks.collected_metrics import CollectedMetric, CollectedMetrics
from mtlcli.tasks.columns import ClassColumns
from mtlcli.tasks.decoding import Decoded, decode_tags
from mtlcli.tasks.entities import TagScheme
from mtlcli.tasks.sample_weights import weighted_mean
from mtlcli.tasks.tag_metrics import TAG_METRICS, WordColumns, entity_metrics

MOST_LISTED = 5  # tags that a message names


@kinds.register("tagging")
class Tagging(TaskKind):
    """A class for each word of a text, such as its part of speech: softmax cross-entropy. Metrics: accuracy, f1.

    Predictions are logits of the tokens, [B, L, tags]; targets are tags of the tokens, int64 [B, L]. The label of a
    word is that of its first token (sub-word); its other tokens and special tokens have none. The loss is the mean over
    all labelled words of a batch, so a long sentence counts more than a short one. A step with gradient accumulation
    and an evaluation compute the mean over all their words.

    `accuracy` (the primary metric) is the share of the labelled words whose tag is predicted. `precision`, `recall` and
    `f1` depend on the form of the tags:

    * Tags that mark entities (`O` and the prefixes B, I, E and S, as in `B-PER`): those of the entities of all types
      together, by the definition of seqeval's default mode, which is that of conlleval: an entity is right if its first
      word, last word and type are. `f1_per_entity` is that of each type. Set the task's `primary: f1` for such tags.
    * Other tags, such as parts of speech: the mean of those of the tags (macro) that occur among the labels or the
      predictions. `f1_per_tag` is that of each tag.

    Words without a label are left out of the sentence. So are words that are cut off by `max_length`.

    Args:
        target: the target, of type `tags`.
        label_smoothing: share ε of the target's probability that is distributed equally among all tags.

    References:
        Ramshaw and Marcus, Text chunking using transformation-based learning, VLC 1995 (the tags); Tjong Kim Sang and
            De Meulder, Introduction to the CoNLL-2003 shared task, CoNLL 2003 (the F1 of entities).
    """

    accepts = ("tags",)
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "accuracy": "max", "f1": "max"}
    bounded: ClassVar[frozenset[str]] = frozenset({"accuracy", "precision", "recall", "f1"})
    collected: Mapping[str, CollectedMetric] = {  # type: ignore[misc]  # of the class: those of either form of tags
        name: metric for name, metric in TAG_METRICS.items() if name not in ("accuracy", "f1")
    } | {f"{name}_per_entity": TAG_METRICS[f"{name}_per_tag"] for name in ("precision", "recall", "f1")}
    probabilities = "softmax"
    weighs_classes = True
    predicts = "sequence"
    primary = "accuracy"

    def __init__(self, target: TargetSpec, *, label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> None:
        super().__init__(target)
        self.outputs = target.size
        self.label_smoothing = label_smoothing
        scheme = TagScheme.of(target.class_names)
        self._units = target.class_names if scheme is None else scheme.types
        self._table = TAG_METRICS if scheme is None else entity_metrics(scheme)
        self.collected = {name: metric for name, metric in self._table.items() if name not in self.directions}

    def choose_metrics(self, names: Sequence[str]) -> None:
        """Set the metrics that the task reports; see `TaskKind.choose_metrics`.

        Args:
            names: the names.

        Raises:
            ValueError: a metric doesn't apply to tags of this form, or the target has no tag or entity in a name.
        """
        for name in names:
            if FAMILY.fullmatch(name) and name not in self._table:
                shown = ", ".join(self.target.class_names[:MOST_LISTED])
                other = "per_entity" if name.endswith("per_tag") else "per_tag"
                form = "mark entities" if other == "per_entity" else "don't mark entities by the prefixes B, I, E or S"
                choice = f"{name.partition('_per_')[0]}_{other}"
                raise ValueError(f"{name!r} does not apply, since the tags {form} ({shown}, …); choose {choice!r}")
        self._chosen = metric_directions(self, names, self._units)

    @property
    def chance_loss(self) -> float | None:
        """The logarithm of the number of tags; see `TaskKind.chance_loss`."""
        return math.log(self.outputs) if self.outputs > 1 else None

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean cross-entropy over the labelled words; see `TaskKind.loss`.

        Args:
            prediction: logits of any precision, [B, L, tags].
            target: tags, int64 [B, at least 1]; those beyond L are ignored.
            weight: weights of the examples, float32 [B], or of the words, [B, as target]; None for equal weights.

        Returns:
            The mean loss, float32, 0-d.
        """
        labels = fit_length(target, prediction.shape[1])
        mask = is_labelled(labels)
        if weight is not None:
            weight = weight.unsqueeze(1).expand_as(mask) if weight.ndim == 1 else fit_length(weight, mask.shape[1], 0.0)
            mask = mask & (weight > 0)
        # the prediction of an unlabelled token, even if infinite, doesn't reach the gradient
        logits = prediction.float().masked_fill(~mask.unsqueeze(2), 0.0)
        losses = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none",
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        if weight is None:
            return masked_mean(losses, mask.flatten())
        return weighted_mean(losses, mask.flatten(), weight.flatten())

    def metrics(self, device: torch.device) -> CollectedMetrics:
        """Create the metrics accuracy and F1."""
        return self.collect([name for name in self.directions if name != "loss"])

    def collect(self, names: Sequence[str]) -> CollectedMetrics:
        """Create metrics that are computed from the words; see `TaskKind.collect`."""
        return CollectedMetrics(self._table, names, self.columns, self._units)

    def columns(self, prediction: Tensor, target: Tensor) -> ClassColumns:
        """Return the numbers of the words of a batch from which metrics are computed."""
        labels = fit_length(target, prediction.shape[1])
        return WordColumns(prediction, labels.masked_fill(~is_labelled(labels), -1))

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the tag of each token, None where the logits are NaN; see `TaskKind.decode`."""
        logits = at_least_float32(outputs)
        return decode_tags(logits.softmax(2), self.class_names)


def fit_length(values: Tensor, length: int, fill: float = IGNORE_INDEX) -> Tensor:
    """Cut or pad the values of tokens to a number of tokens.

    Args:
        values: values, [B, tokens].
        length: number of tokens.
        fill: value of added tokens.

    Returns:
        [B, length].
    """
    if values.shape[1] >= length:
        return values[:, :length]
    return F.pad(values, (0, length - values.shape[1]), value=fill)
