"""Low-rank adapters and bottlenecks, written from the papers in NumPy float64, one example at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return e / e.sum()


def patches(x: Array, weight: Array, stride: int, padding: int) -> Array:
    """[C, H, W] → [H', W', C·k·k]: the inputs of a convolution with this weight at each position of its output."""
    kernel = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((size - kernel) // stride + 1 for size in padded.shape[1:])
    out = np.zeros((rows, columns, weight[0].size))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            out[i, j] = padded[:, top : top + kernel, left : left + kernel].ravel()
    return out


def lora(x: Array, w: Array, a: Array, b: Array, scale: float) -> Array:
    """Hu et al. 2021, equation 3: W x + (α/r) B A x for one input. w: [m, n]. a: [r, n]. b: [m, r]."""
    return w @ x + scale * (b @ (a @ x))


def mtl_lora(x: Array, w: Array, a: Array, transform: Array, bs: Sequence[Array], mixture: Array, tau: float) -> Array:
    """Yang et al. 2024: W x + Σ_i softmax(w_t/τ)_i B_i Λ_t A x for one input, without the factor α/r.

    transform: Λ_t, [r, r]. bs: n matrices B_i, [m, r]. mixture: w_t, [n].
    """
    shares = np.exp(mixture / tau) / np.exp(mixture / tau).sum()
    out = w @ x
    for share, b in zip(shares, bs, strict=True):
        out = out + share * (b @ (transform @ (a @ x)))
    return out


def hydra(x: Array, w: Array, a: Array, bs: Sequence[Array], router: Array, scale: float) -> Array:
    """Tian et al. 2024: W₀ x + Σ_i ω_i B_i A x with ω = softmax(W_gᵀ x), for one input. router: W_gᵀ, [N, n]."""
    gates = softmax(router @ x)
    out = w @ x
    for gate, b in zip(gates, bs, strict=True):
        out = out + scale * gate * (b @ (a @ x))
    return out


def bottleneck(h: Array, down: Array, down_bias: Array, up: Array, up_bias: Array) -> Array:
    """Houlsby et al. 2019, figure 2: h + W_up relu(W_down h + b_down) + b_up for one vector."""
    return h + up @ np.maximum(down @ h + down_bias, 0) + up_bias
