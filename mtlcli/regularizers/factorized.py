"""Layers whose weight is a sum of R components of rank 1: W = Σ_r u_r v_rᵀ = U Vᵀ."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SVD = tuple[Tensor, Tensor, Tensor]


class Factorized(nn.Module):
    """Base: takes the place of a layer with the weight W [m, n]; of a convolution the matrix is [out, in·k·k].

    u: U, [m, R]. v: Vᵀ, [R, n], in the shape of a weight: [R, in, k, k] of a convolution. bias: the layer's own.
    So a state dict tells the rank: `state["….u"].shape[1]`.

    It starts from the layer's truncated singular value decomposition W = P S Qᵀ, balanced: U = P √S, V = Q √S, computed
    in float64 on the CPU, so it is the same on every device. On `meta` there is nothing to decompose, only shapes are
    made. Device, dtype, memory layout and `requires_grad` are those of the layer's weight.

    rank: R at the start, at most min(m, n), which is also what None stands for.
    """

    bias: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int | None = None) -> None:
        super().__init__()
        weight = layer.weight
        self.shape = weight.shape  # of the weight that it stands for
        full = min(len(weight), weight[0].numel())
        self.bias = layer.bias
        self._blank(weight, min(full, rank or full))
        if not weight.is_meta:
            matrix = weight.detach().flatten(1).cpu().double()
            self._take(torch.linalg.svd(matrix, full_matrices=False))

    @property
    def rank(self) -> int:
        """The number of components, R."""
        return self.u.shape[1]

    @property
    def weight(self) -> Tensor:
        """W in the layer's shape, with its graph, for modules that read a layer's weight instead of calling it."""
        return (self.u @ self.v.flatten(1)).view(self.shape)

    def norms(self) -> tuple[Tensor, Tensor]:
        """‖u_r‖ and ‖v_r‖ of every component, [R] each; their gradient at 0 is 0."""
        return torch.linalg.vector_norm(self.u, dim=0), torch.linalg.vector_norm(self.v.flatten(1), dim=1)

    @torch.no_grad()
    def svd(self) -> SVD:
        """P [m, R], S [R], descending, and Qᵀ [R, n] of the weight, in float64 on the CPU, without making the weight.

        n and m are at least R; W has no more than R singular values that aren't 0.
        """
        left, rest = torch.linalg.qr(self.u.cpu().double())
        right, other = torch.linalg.qr(self.v.flatten(1).T.cpu().double())
        p, s, q = torch.linalg.svd(rest @ other.T)
        return left @ p, s, q @ right.T

    def truncate(self, rank: int) -> None:
        """Keep the `rank` largest singular values of the weight: no matrix of that rank is nearer to it."""
        found = self.svd()
        self.resize(rank)
        self._take(found)

    def resize(self, rank: int) -> None:
        """New factors of this rank, all 0, for values that are loaded next. Those that have it already stay."""
        if rank != self.rank:
            self._blank(self.v, rank)

    def _blank(self, like: Tensor, rank: int) -> None:
        m, *rest = self.shape
        channels_last = like.dim() == 4 and like.stride(1) == 1 and like.stride(3) == like.shape[1]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        v = torch.empty(rank, *rest, dtype=like.dtype, device=like.device, memory_format=layout).zero_()
        self.u = nn.Parameter(like.new_zeros(m, rank), like.requires_grad)
        self.v = nn.Parameter(v, like.requires_grad)

    @torch.no_grad()
    def _take(self, decomposition: SVD) -> None:
        p, s, q = decomposition
        root = s[: self.rank].sqrt()
        self.u.copy_(p[:, : self.rank] * root)
        self.v.copy_((root.unsqueeze(1) * q[: self.rank]).view(self.v.shape))

    def extra_repr(self) -> str:
        return f"{'×'.join(map(str, self.shape))}, rank={self.rank}, bias={self.bias is not None}"


class FactorizedLinear(Factorized):
    """A linear layer to R values, then one to the outputs: [..., n] → [..., m]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.v), self.u, self.bias)


class FactorizedConv2d(Factorized):
    """A k×k convolution to R channels, then a 1×1 one: [B, in, H, W] → [B, out, H', W'].

    Stride, padding, its mode, and dilation are those of the layer. ValueError for one of several groups: its weight
    isn't one matrix.
    """

    def __init__(self, layer: nn.Conv2d, rank: int | None = None) -> None:
        if layer.groups > 1:
            raise ValueError(
                f"a convolution of {layer.groups} groups can't be factorized: each group has a matrix of its own"
            )
        super().__init__(layer, rank)
        self.stride, self.dilation, self.padding = layer.stride, layer.dilation, layer.padding
        self.padding_mode = layer.padding_mode
        self.margins = layer._reversed_padding_repeated_twice  # as F.pad takes them

    def forward(self, x: Tensor) -> Tensor:
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.margins, mode=self.padding_mode), 0
        inner = F.conv2d(x, self.v, None, self.stride, padding, self.dilation)
        return F.conv2d(inner, self.u[:, :, None, None], self.bias)


def dense(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's state dict with the weights that factorized layers stand for in the place of their factors."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name, _, part = key.rpartition(".")
        pair = part in ("u", "v") and f"{name}.u" in state and f"{name}.v" in state
        if not pair:
            found[key] = value
        elif part == "v":
            found[f"{name}.weight"] = (state[f"{name}.u"] @ value.flatten(1)).view(-1, *value.shape[1:])
    return found
