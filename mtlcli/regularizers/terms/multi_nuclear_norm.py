"""The multi-nuclear norm of factorized layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.factorized import Factorized, FactorizedConv2d, FactorizedLinear
from mtlcli.regularizers.layers import Layer, Patterns, find_layers
from mtlcli.specs import TrunkPass


@regularizers.register("multi_nuclear_norm")
class MultiNuclearNorm(Regularizer):
    """Layers as sums of rank-1 components, and the sum of the components' sizes: it drives their rank down.

        W = Σ_{r≤R} u_r v_rᵀ,    Ω = Σ_layers Σ_r ‖u_r‖₂ ‖v_r‖₂

    Every Linear and Conv2d in `layers` is replaced by its factors (`mtlcli/regularizers/factorized.py`), a convolution
    as its (out × in·k·k) matrix: a k×k convolution to R channels, then a 1×1 one. The factors start from the layer's
    truncated singular value decomposition: at full rank the network computes what it did.

    Ω is never below the nuclear norm of W, and equal to it where the components are those of its singular value
    decomposition. So a minimum with Ω is one with the nuclear norm, and has its rank. But other components reach it
    too, more of them than W has rank. Therefore `rank` and `compress` first take W apart anew, by its singular value
    decomposition, in which ‖u_r‖‖v_r‖ = σ_r. `rank` in the tables (of all layers; `rank.LAYER` of each) is the number
    of those above `threshold` times the layer's largest; after training the others are taken out (one always stays).
    That changes W by at most `threshold` of its own spectral norm, so a layer's output (bias aside) by at most that
    part of the most it can be for an input of that length. (The default's 0.05 took 40 % of the trunk's parameters out
    of a lenet trained on MNIST and FashionMNIST with a strength of 5e-3, and 0.1 points of accuracy.) A layer has fewer
    weights than the dense one below the rank m n / (m + n); one that hasn't stays factorized, and the report of the
    compression names it.

    By default Ω's gradient is part of the objective's, 0 for a component of size 0. With `proximal` it isn't: after
    each step each pair of factors is set to argmin ½‖u − u_r‖² + ½‖v − v_r‖² + τ‖u‖‖v‖ with τ = strength × learning
    rate, which leaves their directions, and for a = ‖u_r‖, b = ‖v_r‖ and τ < 1

        ‖u‖ = (a − τ b) / (1 − τ²),  ‖v‖ = (b − τ a) / (1 − τ²)    where both are positive,
        otherwise the smaller of the two is 0 and the other stays (for τ ≥ 1 always).

    That is a group soft-threshold of each factor by τ times the other's norm, for both at once. With plain SGD it is
    proximal gradient descent: what stays where it is is a stationary point of L + strength Ω. With momentum μ that
    holds for (1 − μ) strength. After an adaptive optimizer's step (Adam), which has no one step size, it is a decay
    decoupled from the gradient, like AdamW's, and there is no such objective. It can't be a task then (`as_task`).

    Sources: the seed document's section on multi-nuclear norm regularization. As a bound on the nuclear norm: Srebro,
    Rennie and Jaakkola, Maximum-margin matrix factorization, NeurIPS 2004; Haeffele, Young and Vidal, Structured
    low-rank matrix factorization, ICML 2014. ValueError for a pattern that matches nothing, and grouped convolutions.

    Options:
        layers: names of the trunk's layers, or patterns of them (`fc1`, `conv*`), as `named_modules` has them.
        rank: the largest R of a layer; none: its full rank.
        proximal: whether a proximal step after the optimizer's takes the place of Ω's gradient.
        threshold: the part of a layer's largest singular value up to which others are taken out after training.
    """

    default_strength = 1e-3
    reshapes = True

    def __init__(
        self,
        subject: Subject,
        *,
        layers: Patterns = ["*"],  # noqa: B006 (never changed)
        rank: PositiveInt | None = None,
        proximal: bool = False,
        threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    ) -> None:
        super().__init__()
        self.proximal, self.threshold, self.differentiable = proximal, threshold, not proximal
        found = find_layers(subject, layers)
        made = [_factorized(layer, rank) for layer in found]  # all of them, before any is replaced
        for layer, module in zip(found, made, strict=True):
            layer.replace(module)
        # in a dict they are no submodules of this one
        self.layers = {layer.name: module for layer, module in zip(found, made, strict=True)}

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`. Without a graph where `proximal`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.proximal):
            norms = [layer.norms() for layer in self.layers.values()]
            return torch.cat([u * v for u, v in norms]).sum()

    @torch.no_grad()
    def after_step(self, step_size: float) -> None:
        """The proximal step, with τ = step_size."""
        for layer in self.layers.values() if self.proximal else ():
            if layer.u.requires_grad:
                u, v = proximal_scales(*layer.norms(), step_size)
                layer.u.mul_(u)
                layer.v.mul_(v.view(-1, *[1] * (layer.v.dim() - 1)))

    def metrics(self) -> dict[str, float]:
        """`rank`: the singular values above the threshold, of all layers; `rank.LAYER`: of each."""
        try:
            ranks = {f"rank.{name}": float(self._rank(layer)) for name, layer in self.layers.items()}
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # of weights that aren't finite: the run itself will say so
            return {"rank": math.nan, **{f"rank.{name}": math.nan for name in self.layers}}
        return {"rank": sum(ranks.values()), **ranks}

    def _rank(self, layer: Factorized) -> int:
        """How many singular values are above the threshold, and at least 1."""
        values = layer.svd()[1]
        return max(1, int((values > self.threshold * values[0]).sum()))

    def compress(self) -> dict[str, Any]:
        """Take out what is at or below the threshold.

        `layers`: name → rank afterwards (`rank`) and before (`of`), numbers in the factors afterwards and before, and
        of the dense weight, all without bias. `larger_than_dense`: the names of those that are.
        """
        report: dict[str, dict[str, int]] = {}
        for name, layer in self.layers.items():
            before, size, rank = layer.rank, _size(layer), self._rank(layer)
            if rank < before:
                layer.truncate(rank)
            sizes = {"parameters": _size(layer), "parameters_before": size, "dense": layer.shape.numel()}
            report[name] = {"rank": rank, "of": before, **sizes}
        larger = [name for name, found in report.items() if found["parameters"] > found["dense"]]
        return {"layers": report, "larger_than_dense": larger}


def proximal_scales(a: Tensor, b: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """What the proximal step of `step`·‖u‖‖v‖ multiplies u and v by. a, b: ‖u_r‖ and ‖v_r‖, [R]; the factors too."""
    keeps_u = a > step * b if step < 1 else a > b
    keeps_v = b > step * a if step < 1 else ~keeps_u
    both, shrink = keeps_u & keeps_v, 1 / (1 - step**2) if step < 1 else 0.0
    u, v = (1 - step * b / a) * shrink, (1 - step * a / b) * shrink
    return torch.where(both, u, keeps_u.to(a.dtype)), torch.where(both, v, keeps_v.to(a.dtype))


def _factorized(layer: Layer, rank: int | None) -> Factorized:
    if isinstance(layer.module, nn.Linear):
        return FactorizedLinear(layer.module, rank)
    try:
        return FactorizedConv2d(layer.module, rank)
    except ValueError as error:
        raise ValueError(f"layers: {layer.name}: {error}; name the layers that are meant without it") from error


def _size(layer: Factorized) -> int:
    return layer.u.numel() + layer.v.numel()
