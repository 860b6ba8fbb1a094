"""Search for the text that belongs to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, is_labelled
from mtlcli.tasks.base import Direction, TaskKind, masked_mean
from mtlcli.tasks.collected_metrics import CollectedMetric, CollectedMetrics
from mtlcli.tasks.decoding import Decoded, decode_numbers
from mtlcli.tasks.pairs import PairColumns, PairVectors, cosines, search_metrics
from mtlcli.tasks.sample_weights import weighted_mean

CANDIDATES = 1000  # pairs among which the metrics search


@kinds.register("contrastive")
class Contrastive(TaskKind):
    """Search for the text that belongs to another, by in-batch negatives (InfoNCE). Metrics: recall_at_1, mrr.

    The dataset has pairs of texts that belong together, which are encoded separately. Predictions are the vectors of
    both texts, [B, 2, D]. The second texts of the other pairs of the batch are the negatives of a first text u_i:

        ℓ_i = −log(exp(cos(u_i, v_i) / τ) / Σ_j exp(cos(u_i, v_j) / τ))

    With `symmetric`, ℓ_i is the mean of this and of the same for v_i among all u_j. The loss is the mean over the
    pairs. The negatives are those of one batch of `batch_size` pairs: gradient accumulation makes larger steps, but
    doesn't add negatives, and the loss in an evaluation depends on `evaluation.batch_size`. A pair without a label, or
    with a weight of 0, takes no part, also not as a negative; weights otherwise multiply the losses of the pairs only.

    The target `pair`, which a dataset of separately encoded pairs has by itself, marks all pairs. A target of classes
    marks pairs of which others of the same class are no negatives.

    Metrics: consecutive pairs of the split are divided into groups of `candidates` (the last may be smaller). The rank
    of v_i is 1 plus the number of second texts in the group with a larger similarity to u_i; with `symmetric` those of
    both directions are averaged. `recall_at_1` (the primary metric) is the share of rank 1, `recall_at_5` that of the
    ranks up to 5, `mrr` the mean of 1 / rank.

    References:
        van den Oord, Li and Vinyals, Representation learning with contrastive predictive coding, 2018, eq. 4.
        Henderson et al., Efficient natural language response suggestion for Smart Reply, 2017, section 4.4
            (multiple-negatives ranking: one direction, without a temperature).

    Args:
        target: the target, of type `binary` with labels 1, or `classes`.
        temperature: temperature τ.
        symmetric: whether second texts search among the first ones as well.
        candidates: number of pairs among which the metrics search.
        dimensions: width of the vectors if the task's head computes them from the features. Default: the vectors are
            the features, without a head.
    """

    accepts = ("binary", "classes")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "recall_at_1": "max", "mrr": "max"}
    bounded: ClassVar[frozenset[str]] = frozenset({"recall_at_1", "recall_at_5", "recall_at_10", "mrr"})
    collected: ClassVar[Mapping[str, CollectedMetric]] = {
        name: metric
        for name, metric in search_metrics(CANDIDATES, False, True).items()
        if name in ("recall_at_5", "recall_at_10")
    }
    primary = "recall_at_1"
    pairs = True

    def __init__(
        self,
        target: TargetSpec,
        *,
        temperature: PositiveFloat = 0.05,
        symmetric: bool = True,
        candidates: PositiveInt = CANDIDATES,
        dimensions: PositiveInt | None = None,
    ) -> None:
        super().__init__(target)
        self.temperature, self.symmetric = temperature, symmetric
        self.outputs = dimensions or 0
        self._by_class = target.type == "classes"
        self._table = search_metrics(candidates, self._by_class, symmetric)

    def wrong_label(self, labels: Tensor) -> str | None:
        """Return a label 0 of a binary target; see `TaskKind.wrong_label`."""
        if self._by_class or bool((labels == 1).all()):
            return None
        return "0, but `contrastive` learns from pairs that belong together, with the label 1; leave out the others"

    def output_layer(self) -> nn.Module:
        """Return the arrangement of the vectors by pairs."""
        return PairVectors()

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean InfoNCE loss over the labelled pairs; see `TaskKind.loss`.

        Args:
            prediction: vectors of both texts, [B, 2, D].
            target: labels, [B].
            weight: weights of the pairs, float32 [B]; None for equal weights.

        Returns:
            The loss, float32, 0-d.
        """
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0)
        # the vectors of an unlabelled pair, even if infinite, don't reach the gradient
        unit = F.normalize(prediction.float().masked_fill(~mask.view(-1, 1, 1), 0.0), dim=2)
        scores = unit[:, 0] @ unit[:, 1].T / self.temperature
        negative = mask.expand(len(mask), -1)
        if self._by_class:
            negative = negative & (target.unsqueeze(1) != target)
        own = torch.arange(len(mask), device=mask.device)
        excluded = ~(negative | (own.unsqueeze(1) == own))
        losses = F.cross_entropy(scores.masked_fill(excluded, -torch.inf), own, reduction="none")
        if self.symmetric:
            other_way = F.cross_entropy(scores.T.masked_fill(excluded, -torch.inf), own, reduction="none")
            losses = (losses + other_way) / 2
        return masked_mean(losses, mask) if weight is None else weighted_mean(losses, mask, weight)

    def metrics(self, device: torch.device) -> CollectedMetrics:
        """Create the metrics recall at 1 and mean reciprocal rank."""
        return self.collect([name for name in self.directions if name != "loss"])

    def collect(self, names: Sequence[str]) -> CollectedMetrics:
        """Create metrics that are computed from the vectors; see `TaskKind.collect`."""
        return CollectedMetrics(self._table, names, self.columns, ())

    def columns(self, prediction: Tensor, target: Tensor) -> PairColumns:
        """Return the numbers of a batch from which metrics are computed."""
        return PairColumns(prediction.float(), target)

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the cosine of each pair; see `TaskKind.decode`."""
        return decode_numbers(cosines(outputs.float()).unsqueeze(1))
