"""Vectors of pairs of texts that are encoded separately: cosine similarity, and the search among candidates."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.specs import at_least_float32, is_labelled
from mtlcli.tasks.collected_metrics import CollectedMetric, varies
from mtlcli.tasks.columns import Collected

CUTOFFS = (1, 5, 10)  # ranks k of the metrics recall_at_k


class PairVectors(nn.Module):
    """Arrangement of the vectors of both texts of each pair by pairs, in at least float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Arrange vectors.

        Args:
            x: vectors of the first and the second text of each pair in turn, [2B, D].

        Returns:
            [B, 2, D].
        """
        return at_least_float32(x).view(-1, 2, x.shape[1])


class PairCosine(nn.Module):
    """Cosine of the vectors of both texts of each pair, converted linearly to another scale.

    Args:
        factor: factor of the cosine.
        shift: number added to it.
    """

    def __init__(self, factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x: Tensor) -> Tensor:
        """Compute similarities.

        Args:
            x: vectors of the first and the second text of each pair in turn, [2B, D].

        Returns:
            The converted cosines, at least float32, [B, 1].
        """
        pairs = at_least_float32(x).view(-1, 2, x.shape[1])
        cosine = F.cosine_similarity(pairs[:, 0], pairs[:, 1], dim=1).unsqueeze(1)
        return cosine * self.factor + self.shift


def cosines(pairs: Tensor) -> Tensor:
    """Compute the cosine of each pair.

    Args:
        pairs: vectors, [B, 2, D].

    Returns:
        [B].
    """
    return F.cosine_similarity(pairs[:, 0], pairs[:, 1], dim=1)


class PairColumns:
    """Numbers of a batch of pairs from which the metrics of a search are computed.

    Args:
        pairs: vectors of both texts of each pair, [B, 2, D].
        target: labels, [B]: classes, or 1.
    """

    def __init__(self, pairs: Tensor, target: Tensor) -> None:
        self._pairs, self._target = pairs, target

    def labelled(self) -> Tensor:
        """Return the mask of the labelled pairs, bool [B]."""
        return is_labelled(self._target)

    def pair(self) -> Tensor:
        """Return the vectors, [B, 2, D]."""
        return self._pairs

    def label(self) -> Tensor:
        """Return the labels, [B]."""
        return self._target


def search_ranks(collected: Collected, candidates: int, by_class: bool, both: bool) -> Tensor:
    """Rank the partner of each text among the candidates, by cosine similarity.

    The pairs of a split are divided into groups of consecutive ones. The candidates of a first text are the second
    texts of its group, and vice versa. The rank of its partner is 1 plus the number of candidates with a larger
    similarity; equal ones, such as copies of a text, don't count.

    Args:
        collected: the columns `pair` and `label`.
        candidates: number of pairs of a group.
        by_class: whether other pairs of the same class are no candidates.
        both: whether second texts search as well, after the first ones.

    Returns:
        Ranks, float64 [N] or [N, 2]; NaN where a vector is NaN or all candidates are equal.
    """
    groups: list[Tensor] = []
    for pairs, labels in zip(
        torch.split(collected["pair"], candidates), torch.split(collected["label"], candidates), strict=True
    ):
        unit = F.normalize(pairs.double(), dim=2)
        similarity = unit[:, 0] @ unit[:, 1].T
        own = similarity.diagonal()
        other = torch.ones_like(similarity, dtype=torch.bool)
        if by_class:
            other = labels.unsqueeze(1) != labels
        directions = []
        for scores in (similarity, similarity.T)[: 2 if both else 1]:
            larger = (scores > own.unsqueeze(1)) & other
            undefined = scores.isnan().any(1) | (len(scores) > 1 and not varies(scores.flatten()))
            directions.append((1 + larger.sum(1)).double().masked_fill(undefined, math.nan))
        groups.append(torch.stack(directions, 1))
    return torch.cat(groups)


def search_metrics(candidates: int, by_class: bool, both: bool) -> dict[str, CollectedMetric]:
    """Return the metrics of a search among candidates; see `search_ranks` for the arguments.

    Args:
        candidates: number of pairs of a group.
        by_class: whether other pairs of the same class are no candidates.
        both: whether second texts search as well.

    Returns:
        Name → metric.
    """

    def metric(value: Callable[[Tensor], Tensor]) -> CollectedMetric:
        def compute(collected: Collected) -> Tensor:
            ranks = search_ranks(collected, candidates, by_class, both)
            return collected.mean(value(ranks).masked_fill(ranks.isnan(), math.nan).mean(1))

        return CollectedMetric("max", ("pair", "label"), compute)

    def recall_at(k: int) -> CollectedMetric:
        return metric(lambda ranks: (ranks <= k).double())

    return {**{f"recall_at_{k}": recall_at(k) for k in CUTOFFS}, "mrr": metric(lambda ranks: 1 / ranks)}
