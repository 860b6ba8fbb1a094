"""Similarity of two texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, is_labelled
from mtlcli.tasks.base import Direction, TaskKind, masked_mean
from mtlcli.tasks.collected_metrics import CollectedMetric, CollectedMetrics
from mtlcli.tasks.kinds.regression import require_numbers
from mtlcli.tasks.number_metrics import SCORE_METRICS, NumberColumns
from mtlcli.tasks.pairs import PairCosine
from mtlcli.tasks.sample_weights import weighted_mean


@kinds.register("similarity")
class Similarity(TaskKind):
    """Similarity of two texts, which are encoded separately: cosine of their vectors. Metrics: spearman, pearson.

    The dataset has pairs of texts. Predictions [B, 1] are scores in the target's units: the cosine of both vectors,
    converted linearly so that the scores of `scale` correspond to the cosines `lowest` and 1. Targets are scores [B].

    The loss `mse` is the mean of (cos(u, v) − c)², where c is the cosine of the target's score. `cosent` compares the
    pairs of a batch: log(1 + Σ exp(sharpness · (cos_j − cos_i))) over all i, j with a higher score of i; with gradient
    accumulation, these are the pairs of a micro-batch, and the losses of the micro-batches are averaged by their
    numbers of labels, as are the losses of the batches of an evaluation. With weights, a term is multiplied by the
    weights of both pairs.

    `spearman` (the primary metric) is the rank correlation of predictions and scores, `pearson` their linear one.

    References:
        Reimers and Gurevych, Sentence-BERT: sentence embeddings using Siamese BERT-networks, EMNLP 2019, section 3
            (`mse`, with c = score / 5 for scores from 0 to 5).
        Su, CoSENT: a more efficient sentence vector scheme than Sentence-BERT, 2022 (`cosent`, with sharpness 20).

    Args:
        target: the target, of type `real`, `binary`, or `classes` that are numbers.
        scale: the lowest and the highest possible score, such as [0, 5]. Default: those of a target that is binary or
            has classes; needed for a real one.
        lowest: cosine of the lowest score: 0 if it means that the texts are unrelated, −1 if they are opposites.
        loss: `mse` or `cosent`.
        sharpness: factor of the differences of cosines in `cosent`.
        dimensions: width of the vectors if the task's head computes them from the features. Default: the vectors are
            the features, without a head.

    Raises:
        ValueError: if `scale` is missing or not increasing.
    """

    accepts = ("real", "binary", "classes")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "spearman": "max", "pearson": "max"}
    bounded: ClassVar[frozenset[str]] = frozenset({"spearman", "pearson"})
    collected: ClassVar[Mapping[str, CollectedMetric]] = {
        name: metric for name, metric in SCORE_METRICS.items() if name not in ("spearman", "pearson")
    }
    primary = "spearman"
    likelihood = "gaussian"
    pairs = True

    def __init__(
        self,
        target: TargetSpec,
        *,
        scale: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None,
        lowest: Annotated[float, Field(ge=-1, lt=1)] = 0.0,
        loss: Literal["mse", "cosent"] = "mse",
        sharpness: PositiveFloat = 20.0,
        dimensions: PositiveInt | None = None,
    ) -> None:
        super().__init__(target)
        require_numbers(target)
        if scale is None:
            if target.type == "real":
                raise ValueError("a real target needs `scale`, its lowest and highest score, such as `scale: [0, 5]`")
            scale = [0.0, float(max(target.size, 2) - 1)]
        self.low, self.high = scale
        if self.high <= self.low:
            raise ValueError(f"`scale` must be increasing, got {scale}")
        self.lowest, self.loss_name, self.sharpness = lowest, loss, sharpness
        self.outputs = dimensions or 0
        self._factor = (self.high - self.low) / (1 - lowest)  # scores per unit of the cosine

    def wrong_label(self, labels: Tensor) -> str | None:
        """Return a score outside the scale; see `TaskKind.wrong_label`."""
        wrong = (labels < self.low) | (labels > self.high)
        if not bool(wrong.any()):
            return None
        return f"{labels[wrong][0].item():g}, expected a score from {self.low:g} to {self.high:g} (see `scale`)"

    def output_layer(self) -> nn.Module:
        """Return the cosine in the target's units."""
        return PairCosine(self._factor, self.low - self.lowest * self._factor)

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the loss over the labelled pairs; see `TaskKind.loss`."""
        prediction = prediction.squeeze(1)
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0)
        # an unlabelled row contributes nothing to the gradient, even if its prediction is infinite or NaN
        cosine, label = prediction.masked_fill(~mask, self.low).float(), target.masked_fill(~mask, self.low).float()
        if self.loss_name == "cosent":
            return self._cosent(cosine / self._factor, label, mask, weight)
        losses = ((cosine - label) / self._factor).square()
        return masked_mean(losses, mask) if weight is None else weighted_mean(losses, mask, weight)

    def metrics(self, device: torch.device) -> CollectedMetrics:
        """Create the metrics Spearman's and Pearson's correlation."""
        return self.collect([name for name in self.directions if name != "loss"])

    def collect(self, names: Sequence[str]) -> CollectedMetrics:
        """Create metrics that are computed from the scores; see `TaskKind.collect`."""
        return CollectedMetrics(SCORE_METRICS, names, self.columns, ())

    def columns(self, prediction: Tensor, target: Tensor) -> NumberColumns:
        """Return the numbers of a batch from which metrics are computed."""
        return NumberColumns(prediction.float().squeeze(1), target)

    def _cosent(self, cosine: Tensor, label: Tensor, mask: Tensor, weight: Tensor | None) -> Tensor:
        """Compute log(1 + Σ w_i w_j exp(sharpness · (cos_j − cos_i))) over the pairs i, j with label_i > label_j."""
        differences = self.sharpness * (cosine - cosine.unsqueeze(1))  # [i, j]
        counted = (label.unsqueeze(1) > label) & mask.unsqueeze(1) & mask
        if weight is not None:
            differences = differences + weight.clamp(min=torch.finfo(torch.float32).tiny).log().unsqueeze(1)
            differences = differences + weight.clamp(min=torch.finfo(torch.float32).tiny).log()
        terms = differences.masked_fill(~counted, -torch.inf).flatten()
        return torch.cat([terms, terms.new_zeros(1)]).logsumexp(0)
