"""The gate of DSelect-k: a mixture of k selectors of one expert each, by binary codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtlcli.models.gates import Gating, widened


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
        selectors = select(widened(self.code(x)).view(-1, self.k, self.bits), self.experts, self.gamma)
        shares = widened(self.share(x)).softmax(1)
        return Gating((shares.unsqueeze(2) * selectors).sum(1), selectors)


class Constant(nn.Module):
    """Numbers that are learned, [1, outputs], whatever it is given."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.value
