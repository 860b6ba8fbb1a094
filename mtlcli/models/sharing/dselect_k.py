"""DSelect-k: a mixture of experts with a differentiable sparse gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.experts import GateOutput, MultiGateMixture
from mtlcli.registry import sharings
from mtlcli.specs import at_least_float32


@sharings.register("dselect_k")
class DSelectK(MultiGateMixture):
    """DSelect-k: `mmoe` with gates that select at most k experts through a smooth function of binary codes.

        f_t(x) = Σ_e q_te f_e(x),   q = Σ_i softmax(α)_i r(z_i), i = 1…k
        r(z)_e = Π_j S(z_j) where bit j of e's binary code is 1, 1 − S(z_j) where it is 0
        S(z) = 0 up to −γ/2, 1 from γ/2, and between them −2 z³/γ³ + 3 z/(2γ) + ½

    Each of a task's k selectors r has a variable z_j for each bit of the experts' codes. At the start all experts have
    nearly equal weights. Once all z_j are at least γ/2 away from 0, a selector has chosen one expert, and the task at
    most k; the choice is permanent, since S is constant there. The regularizer `gate_entropy` drives the selectors
    there; its `strength` is the paper's λ.

    z and α are the same for all of a task's examples (the paper's static gates) or, with `per_example: true`, linear in
    the example, in the form in which a gate of `mmoe` receives it. A gate belongs to its task; the experts are shared.
    If the number of experts is not a power of 2, some codes belong to no expert, and the weight that a selector gives
    them is lost: the weights sum to less than 1. `gate_entropy` contains the term that prevents selectors from ending
    there.

    Note:
        Deviations: all experts are computed for all examples, including experts that no task selects. The authors' code
        always adds the term for codes of no expert; here it is part of `gate_entropy`. The initialization of z and α
        and the biases per example follow the authors' code.

    References:
        Hazimeh, Zhao, Chowdhery, Sathiamoorthy, Chen, Mazumder, Hong and Chi, DSelect-k: differentiable selection in
            the mixture of experts with applications to multi-task learning, NeurIPS 2021, arXiv:2106.03760.

    Args:
        make_trunk: creates a trunk; called for each expert.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        experts: number of trunks.
        k: maximum number of experts that a task selects.
        gamma: γ, the width of the interval in which S is not constant.
        per_example: whether each example has its own weights; otherwise all examples of a task have the same.

    Raises:
        ValueError: if `k` exceeds the number of experts.
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
            raise ValueError(f"k: expected at most {experts}, the number of experts, got {k}")

        def make_gate(width: int) -> nn.Module:
            return SelectorGate(width, experts, k, gamma, per_example)

        super().__init__(make_trunk, make_head, inputs, experts, make_gate)


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """Compute the smooth step S(t): 0 up to −γ/2, 1 from γ/2, and −2 t³/γ³ + 3 t/(2γ) + ½ between them.

    Its derivative is continuous. The values 0 and 1 and the derivative 0 there are exact.

    Args:
        t: argument, of any shape.
        gamma: γ, the width of the interval in which S is not constant.

    Returns:
        S(t), of the shape of `t`.
    """
    t = (t / gamma).clamp(-0.5, 0.5)
    return t * (1.5 - 2 * t.square()) + 0.5


def select(z: Tensor, experts: int, gamma: float) -> Tensor:
    """Compute single-expert selectors r(z).

    r_e is the product over the bits of S(z_j) where the binary code of e has a 1, and 1 − S(z_j) where it has a 0; the
    first bit is the most significant. r sums to 1 over all 2^bits codes, and thus over the experts if every code
    belongs to one. (It is computed bit by bit, since the gradient of `torch.prod` counts zeros, which synchronizes with
    the device.)

    Args:
        z: variables of the selectors, [..., bits].
        experts: number of experts E.
        gamma: γ, the width of the smooth step.

    Returns:
        The selectors, [..., E].
    """
    product = torch.ones_like(z[..., :1])
    for step in smooth_step(z, gamma).unbind(-1):
        step = step.unsqueeze(-1)
        product = torch.stack([product * (1 - step), product * step], -1).flatten(-2)
    return product[..., :experts]


class SelectorGate(nn.Module):
    """Gate q = Σ_i softmax(α)_i r(z_i), i = 1…k, of which at most k weights are positive once |z| ≥ γ/2 everywhere.

    z and α are parameters that are the same for every example or, with `per_example`, linear in the example. They are
    initialized as in the authors' code: z within ±γ/100, where all experts have nearly equal weights, α within ±0.05.

    Args:
        inputs: number of values in the gate's input for one example.
        experts: number of experts E.
        k: number of selectors.
        gamma: γ, the width of the smooth step.
        per_example: whether z and α depend on the example.
    """

    def __init__(self, inputs: int, experts: int, k: int, gamma: float, per_example: bool) -> None:
        super().__init__()
        self.experts, self.k, self.gamma = experts, k, gamma
        self.bits = (experts - 1).bit_length()
        make = nn.Linear if per_example else Constant
        self.code, self.share = make(inputs, k * self.bits), make(inputs, k)
        for module, bound in ((self.code, gamma / 100), (self.share, 0.05)):
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> GateOutput:
        """Compute the weights of the experts.

        Args:
            x: inputs, [n, …], flattened to [n, inputs].

        Returns:
            Weights, [n or 1, E], and selectors, [n or 1, k, E].
        """
        x = x.flatten(1)
        selectors = select(at_least_float32(self.code(x)).view(-1, self.k, self.bits), self.experts, self.gamma)
        shares = at_least_float32(self.share(x)).softmax(1)
        return GateOutput((shares.unsqueeze(2) * selectors).sum(1), selectors)


class Constant(nn.Module):
    """Learned values that don't depend on the input.

    Args:
        inputs: number of values in the input for one example; unused.
        outputs: number of values.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the values, [1, outputs], for any input."""
        return self.value
