"""Factorized layers, whose weight is a sum of R components of rank 1: W = Σ_r u_r v_rᵀ = U Vᵀ."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SVD = tuple[Tensor, Tensor, Tensor]
"""P, S and Qᵀ of a singular value decomposition P S Qᵀ."""


class Factorized(nn.Module):
    """Base class of the layers that replace a layer with weight W [m, n]; for a convolution W is [out, in·k·k].

    The factors are initialized from the layer's truncated singular value decomposition W = P S Qᵀ, balanced: U = P √S,
    V = Q √S. It is computed in float64 on the CPU, so that it is the same on every device; on `meta` only the shapes
    are created. Device, dtype, memory layout and `requires_grad` are those of the layer's weight.

    Args:
        layer: the layer to replace.
        rank: initial R, at most min(m, n); None: min(m, n).

    Attributes:
        u: U, [m, R]. The rank can be read from a state dict: `state["….u"].shape[1]`.
        v: Vᵀ, [R, n], in the shape of a weight: [R, in, k, k] for a convolution.
        bias: the bias of the layer.
        shape: shape of the replaced weight.
    """

    bias: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int | None = None) -> None:
        super().__init__()
        weight = layer.weight
        self.shape = weight.shape
        full = min(len(weight), weight[0].numel())
        self.bias = layer.bias
        self._blank(weight, min(full, rank or full))
        if not weight.is_meta:
            matrix = weight.detach().flatten(1).cpu().double()
            self._assign(torch.linalg.svd(matrix, full_matrices=False))

    @property
    def rank(self) -> int:
        """Number of components R."""
        return self.u.shape[1]

    @property
    def weight(self) -> Tensor:
        """W in the layer's shape, with its graph, for modules that read the weight instead of calling the layer."""
        return (self.u @ self.v.flatten(1)).view(self.shape)

    def norms(self) -> tuple[Tensor, Tensor]:
        """Compute ‖u_r‖ and ‖v_r‖ of every component, [R] each; their gradient at 0 is 0."""
        return torch.linalg.vector_norm(self.u, dim=0), torch.linalg.vector_norm(self.v.flatten(1), dim=1)

    @torch.no_grad()
    def svd(self) -> SVD:
        """Compute the singular value decomposition P S Qᵀ of W without computing W.

        Returns:
            P [m, R], S [R], descending, and Qᵀ [R, n], float64 on the CPU; W has at most R nonzero singular values.
        """
        left, left_r = torch.linalg.qr(self.u.cpu().double())
        right, right_r = torch.linalg.qr(self.v.flatten(1).T.cpu().double())
        p, s, q = torch.linalg.svd(left_r @ right_r.T)
        return left @ p, s, q @ right.T

    def truncate(self, rank: int) -> None:
        """Keep the largest singular values of W: no other matrix of that rank is closer to W.

        Args:
            rank: number of singular values to keep.
        """
        decomposition = self.svd()
        self.resize(rank)
        self._assign(decomposition)

    def resize(self, rank: int) -> None:
        """Replace the factors with zeros of another rank, whose values are then loaded.

        Args:
            rank: the new rank; if it is the current one, nothing changes.
        """
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
    def _assign(self, decomposition: SVD) -> None:
        p, s, q = decomposition
        root = s[: self.rank].sqrt()
        self.u.copy_(p[:, : self.rank] * root)
        self.v.copy_((root.unsqueeze(1) * q[: self.rank]).view(self.v.shape))

    def extra_repr(self) -> str:
        """Return the shape and rank for `repr`."""
        return f"{'×'.join(map(str, self.shape))}, rank={self.rank}, bias={self.bias is not None}"


class FactorizedLinear(Factorized):
    """A linear layer to R values, followed by one to the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: [..., n] → [..., m]."""
        return F.linear(F.linear(x, self.v), self.u, self.bias)


class FactorizedConv2d(Factorized):
    """A k×k convolution to R channels, followed by a 1×1 convolution.

    Stride, padding, padding mode and dilation are those of the layer.

    Args:
        layer: the layer to replace.
        rank: initial R; None: full rank.

    Raises:
        ValueError: if the layer has several groups, since its weight isn't one matrix.
    """

    def __init__(self, layer: nn.Conv2d, rank: int | None = None) -> None:
        if layer.groups > 1:
            raise ValueError(
                f"a convolution of {layer.groups} groups can't be factorized: each group has its own matrix"
            )
        super().__init__(layer, rank)
        self.stride, self.dilation, self.padding = layer.stride, layer.dilation, layer.padding
        self.padding_mode = layer.padding_mode
        self.margins = layer._reversed_padding_repeated_twice  # in the order of F.pad

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: [B, in, H, W] → [B, out, H', W']."""
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.margins, mode=self.padding_mode), 0
        inner = F.conv2d(x, self.v, None, self.stride, padding, self.dilation)
        return F.conv2d(inner, self.u[:, :, None, None], self.bias)


def merge_factors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the factors of factorized layers by their products.

    Args:
        state: state dict of a model.

    Returns:
        The state dict with the weights W in place of the factors u and v.
    """
    merged: dict[str, Tensor] = {}
    for key, value in state.items():
        name, _, factor = key.rpartition(".")
        pair = factor in ("u", "v") and f"{name}.u" in state and f"{name}.v" in state
        if not pair:
            merged[key] = value
        elif factor == "v":
            merged[f"{name}.weight"] = (state[f"{name}.u"] @ value.flatten(1)).view(-1, *value.shape[1:])
    return merged
