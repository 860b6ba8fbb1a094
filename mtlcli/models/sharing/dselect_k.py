"""A mixture of experts whose gates select a few of them, and can be trained like any other layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.experts import GatePerTask, Gating, at_least_float32
from mtlcli.registry import sharings


@sharings.register("dselect_k")
class DSelectK(GatePerTask):
    """DSelect-k: as `mmoe`, with gates that come to select k of the experts, by a smooth function of binary codes.

        f_t(x) = Σ_e q_te f_e(x),   q = Σ_i softmax(α)_i r(z_i), i = 1…k
        r(z)_e = Π_j S(z_j) where bit j of e's binary code is 1, 1 − S(z_j) where it is 0
        S(z) = 0 up to −γ/2, 1 from γ/2, and between them −2 z³/γ³ + 3 z/(2γ) + ½

    Each of a task's k selectors r has a number z_j for each bit of the experts' codes. All experts count alike at the
    start. Once the numbers are at least γ/2 away from 0 a selector has chosen one expert, and so the task at most k:
    for good, as S is flat there. The regularizer `gate_entropy` leads there, with the paper's λ as its `strength`.

    z and α are the same for all of a task's examples (the paper's static gates), or linear in the example,
    `per_example: true` (it is given what a gate of `mmoe` is). The gates belong to their tasks, the experts are shared.
    Where the number of experts is no power of 2 some codes are no expert's, and what a selector gives these is lost:
    the weights sum to less than 1. `gate_entropy` has the term that keeps selectors from ending there.

    Source: Hazimeh et al., DSelect-k: differentiable selection in the mixture of experts with applications to
    multi-task learning, NeurIPS 2021; how z and α start, and biases per example, are from the authors' code.
    Deviations: all experts are computed for all examples, also those that no task selects; in the authors' code the
    term for codes of no expert is always added, here it is part of `gate_entropy`.
    ValueError for k above the number of experts.

    Options:
        experts: how many trunks.
        k: how many of them a task may come to use.
        gamma: γ, the width in which S isn't flat.
        per_example: whether each example has weights of its own; otherwise a task's examples have the same.
    """

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        experts: Annotated[int, Field(ge=2, le=100)] = 4,
        k: PositiveInt = 2,
        gamma: Annotated[float, Field(gt=0)] = 1.0,
        per_example: bool = False,
    ) -> None:
        if k > experts:
            raise ValueError(f"k: it can't select {k} of {experts} experts; at most {experts}")

        def make_gate(width: int) -> nn.Module:
            return SelectorGate(width, experts, k, gamma, per_example)

        super().__init__(make_trunk, make_head, inputs, experts, make_gate)


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """S(t): 0 up to −γ/2, 1 from γ/2, and between them −2 t³/γ³ + 3 t/(2γ) + ½; its derivative is continuous.

    0 and 1 are exact, and so is the derivative 0 there.
    """
    t = (t / gamma).clamp(-0.5, 0.5)
    return t * (1.5 - 2 * t.square()) + 0.5


def select(z: Tensor, experts: int, gamma: float) -> Tensor:
    """Single-expert selectors r(z): [..., bits] → [..., experts].

    r_e is the product over the bits of S(z_j) where the binary code of e has a 1, and 1 − S(z_j) where it has a 0; the
    first bit is the highest. Sums to 1 over all 2^bits codes, and so over the experts where each code has one.
    (Grown bit by bit: the gradient of `torch.prod` counts its zeros, for which it waits for the device.)
    """
    found = torch.ones_like(z[..., :1])
    for step in smooth_step(z, gamma).unbind(-1):
        step = step.unsqueeze(-1)
        found = torch.stack([found * (1 - step), found * step], -1).flatten(-2)
    return found[..., :experts]


class SelectorGate(nn.Module):
    """q = Σ_i softmax(α)_i r(z_i), i = 1…k: what is given, [n, …], → weights [n or 1, E], of which at most k are > 0
    once every z is at least γ/2 away from 0.

    z and α are numbers that are learned, the same for every example, or, per example, linear in what is given.
    They start as in the authors' code: z within ±γ/100, where every expert counts nearly the same, α within ±0.05.
    """

    def __init__(self, inputs: int, experts: int, k: int, gamma: float, per_example: bool) -> None:
        super().__init__()
        self.experts, self.k, self.gamma = experts, k, gamma
        self.bits = (experts - 1).bit_length()
        make = nn.Linear if per_example else Constant
        self.code, self.share = make(inputs, k * self.bits), make(inputs, k)
        for part, bound in ((self.code, gamma / 100), (self.share, 0.05)):
            for parameter in part.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Gating:
        x = x.flatten(1)
        selectors = select(at_least_float32(self.code(x)).view(-1, self.k, self.bits), self.experts, self.gamma)
        shares = at_least_float32(self.share(x)).softmax(1)
        return Gating((shares.unsqueeze(2) * selectors).sum(1), selectors)


class Constant(nn.Module):
    """Numbers that are learned, [1, outputs], whatever it is given."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.value
