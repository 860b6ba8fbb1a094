"""How much each expert counts for an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtlcli.models.watch import Watch


class Gating(NamedTuple):
    """What a gate says of n examples and E experts; n is 1 where it says the same of all.

    weights: [n, E], each ≥ 0. selectors: [n, k, E], the k distributions over the experts that they are a mean of, which
    the regularizer `gate_entropy` looks at.
    """

    weights: Tensor
    selectors: Tensor


class SoftmaxGate(nn.Module):
    """softmax(W x), or softmax(W x + b) with a bias: [n, …], flattened to [n, D], → weights [n, E] that sum to 1.

    Computed in float32 at least, in every precision: eight bits would make the weights' sum wrong by half a percent.
    """

    def __init__(self, inputs: int, experts: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, experts, bias=bias)

    def forward(self, x: Tensor) -> Gating:
        weights = widened(self.linear(x.flatten(1))).softmax(1)
        return Gating(weights, weights.unsqueeze(1))


def mixed(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Σ_e weights_e · outputs_e: weights [n or 1, E], each output [n, …] → [n, …], laid out as the outputs are."""
    columns = weights.view(*weights.shape, *(1 for _ in outputs[0].shape[1:])).unbind(1)
    total = columns[0] * outputs[0]
    for column, output in zip(columns[1:], outputs[1:], strict=True):
        total = total + column * output
    return total


def show(watch: Watch, owner: str, names: Sequence[str], weights: Tensor, examples: int) -> None:
    """Tell the mean weight of each expert. names: of the experts; weights: [n or 1, E]; examples: that have them."""
    for name, weight in zip(names, weights.mean(0).unbind(), strict=True):
        watch.add(owner, name, weight, examples)


def widened(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
