"""Pairs of texts that are encoded separately."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeparateTexts(nn.Module):
    """Division of pairs of texts into their texts, which pass through the trunk as examples of their own."""

    def forward(self, x: Tensor) -> Tensor:
        """Divide pairs, [B, 2, …] → [2B, …]: the first and the second text of each pair in turn."""
        return x.flatten(0, 1)


class PairFeatures(nn.Module):
    """Features of a pair from those of its texts: (u, v, |u − v|).

    References:
        Reimers and Gurevych, Sentence-BERT: sentence embeddings using Siamese BERT-networks, EMNLP 2019, section 3.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Join features.

        Args:
            x: features of the first and the second text of each pair in turn, [2B, F].

        Returns:
            [B, 3F].
        """
        u, v = x.view(-1, 2, x.shape[1]).unbind(1)
        return torch.cat([u, v, (u - v).abs()], 1)
