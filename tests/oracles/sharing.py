"""Sharings over a trunk's stages, written from the papers in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cross_stitch(
    stages: Sequence[Sequence[Callable[[Array], Array]]], alphas: Sequence[Array | None], x: Array
) -> list[Array]:
    """Misra et al. 2016, equation 1, for T networks: the output of the last stage of each.

    stages: of each network, in order. alphas: [T, T, C] after each stage, None without a cross-stitch unit.
    """
    outputs = [x for _ in stages]
    for at, alpha in enumerate(alphas):
        inputs = [stage[at](y) for stage, y in zip(stages, outputs, strict=True)]
        outputs = inputs
        if alpha is not None:
            outputs = [np.zeros_like(y) for y in inputs]
            for t in range(len(inputs)):
                for s in range(len(inputs)):
                    for c in range(inputs[s].shape[1]):
                        outputs[t][:, c] += alpha[t, s, c] * inputs[s][:, c]
    return outputs


def batch_norm(x: Array, p: Mapping[str, Array]) -> Array:
    """Normalize by the running statistics. p: weight, bias, running_mean, running_var."""
    place = (1, -1, *(1,) * (x.ndim - 2))
    mean, var, weight, bias = (p[k].reshape(place) for k in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def conv3x3(x: Array, weight: Array) -> Array:
    """[B, C, H, W], [O, C, 3, 3] → [B, O, H, W], zeros around."""
    batch, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((batch, len(weight), height, width))
    for i in range(height):
        for j in range(width):
            out[:, :, i, j] = np.einsum("bchw,ochw->bo", padded[:, :, i : i + 3, j : j + 3], weight)
    return out


def mask(x: Array, layers: Sequence[Mapping[str, Array]]) -> Array:
    """σ(h(g(x))): Liu et al. 2019, equation 2. layers: conv, norm, conv, norm on maps; linear, linear on vectors."""
    if x.ndim == 4:
        g = np.einsum("bchw,oc->bohw", x, layers[0]["weight"][:, :, 0, 0])
        g = np.maximum(batch_norm(g, layers[1]), 0)
        h = batch_norm(np.einsum("bchw,oc->bohw", g, layers[2]["weight"][:, :, 0, 0]), layers[3])
    else:
        g = np.maximum(x @ layers[0]["weight"].T + layers[0]["bias"], 0)
        h = g @ layers[1]["weight"].T + layers[1]["bias"]
    return 1 / (1 + np.exp(-h))


def enlarge(x: Array, height: int, width: int) -> Array:
    """Bilinear interpolation of [B, C, h, w] to [B, C, height, width], whose corners are those of x."""

    def matrix(before: int, after: int) -> Array:
        rows = np.zeros((after, before))
        for at in range(after):
            position = at * (before - 1) / (after - 1)
            low = min(int(position), before - 1)
            rows[at, low] += 1 - (position - low)
            rows[at, min(low + 1, before - 1)] += position - low
        return rows

    return np.einsum("ih,bchw,jw->bcij", matrix(x.shape[2], height), x, matrix(x.shape[3], width))


def onward(x: Array, layers: Sequence[Mapping[str, Array]], shape: tuple[int, ...]) -> Array:
    """f, to a stage of that shape (halved maps, the same ones, larger ones, or a vector of their means)."""
    if x.ndim == 2:
        return np.maximum(x @ layers[0]["weight"].T + layers[0]["bias"], 0)
    if len(shape) == 3 and shape[1] > x.shape[2]:
        x = enlarge(x, shape[1], shape[2])
    out = np.maximum(batch_norm(conv3x3(x, layers[0]["weight"]), layers[1]), 0)
    if len(shape) == 1:
        return out.mean((2, 3))
    step = x.shape[2] // shape[1]
    batch, channels = out.shape[:2]
    return out.reshape(batch, channels, shape[1], step, shape[2], step).max((3, 5))


def mtan(
    activations: Sequence[Array],
    masks: Sequence[Sequence[Mapping[str, Array]]],
    passages: Sequence[Sequence[Mapping[str, Array]]],
    sources: Sequence[Array] | None = None,
) -> tuple[Array, list[Array]]:
    """One task's â of the last stage, and its masks: Liu et al. 2019, equations 1 and 2.

    activations: p_j of each stage. sources: u_j of each stage, p_j if they are left out.
    """
    masked, attended = [], activations[0]
    for at, (p, u) in enumerate(zip(activations, activations if sources is None else sources, strict=True)):
        inputs = u if at == 0 else np.concatenate([u, onward(attended, passages[at - 1], p.shape[1:])], 1)
        masked.append(mask(inputs, masks[at]))
        attended = masked[-1] * p
    return attended, masked
