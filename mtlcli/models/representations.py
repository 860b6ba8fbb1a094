"""Forms of a trunk's output, and the pooling of sequences and maps to vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mtlcli.specs import Pool, Shape, at_least_float32

Representation = Literal["vector", "sequence", "map"]
"""Form of a representation: a vector [B, F], a sequence of vectors [B, L, F], or a feature map [B, F, h, w]."""

POOLS: dict[Representation, tuple[Pool, ...]] = {
    "vector": (),
    "sequence": ("mean", "cls", "max", "last"),
    "map": ("mean", "max"),
}
"""The poolings of each form."""

GATE_CELLS = 4  # along the height and the width of an image, for a gate


def pool_representation(x: Tensor, pool: Pool, mask: Tensor | None = None) -> Tensor:
    """Pool a sequence or a map to a vector.

    Args:
        x: sequence [B, L, F], or map [B, F, h, w].
        pool: `mean` or `max` over the valid positions, `cls` for the first position, or `last` for the last valid one.
            A map has `mean` and `max` only.
        mask: valid positions of a sequence, bool [B, at most L], at least one in each row; positions beyond its width
            are not valid. None: all positions.

    Returns:
        Vectors, [B, F].
    """
    if x.ndim == 4:
        return x.mean((2, 3)) if pool == "mean" else x.amax((2, 3))
    if pool == "cls":
        return x[:, 0]
    if mask is None:
        if pool == "last":
            return x[:, -1]
        return x.mean(1) if pool == "mean" else x.amax(1)
    mask = torch.nn.functional.pad(mask, (0, x.shape[1] - mask.shape[1]))
    if pool == "last":
        position = torch.arange(x.shape[1], device=x.device)
        last = torch.where(mask, position, 0).amax(1)
        return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)
    valid = mask.unsqueeze(2)
    if pool == "max":
        return x.masked_fill(~valid, -torch.inf).amax(1)
    total = at_least_float32(x).masked_fill(~valid, 0.0).sum(1)
    return (total / mask.sum(1, keepdim=True)).to(x.dtype)


def gate_width(shape: Shape, first: bool) -> int:
    """Return the number of values of `pool_for_gate` for one example.

    Args:
        shape: shape [C, H, W] of the image or the feature maps.
        first: whether it is the input of the first stage.

    Returns:
        The number.
    """
    return pool_for_gate(torch.empty(1, *shape, device="meta"), first).shape[1]


def pool_for_gate(x: Tensor, first: bool) -> Tensor:
    """Pool images or feature maps to the input of a gate, so that its weights don't grow with the size of the images.

    Args:
        x: images or feature maps, [B, C, H, W].
        first: whether they are the input of the first stage.

    Returns:
        For the input of the first stage the means of at most `GATE_CELLS` × `GATE_CELLS` cells of equal size, those at
        the edges possibly smaller, [B, C · cells]; for others the mean over the map, [B, C].
    """
    if not first:
        return x.mean((2, 3))
    cell = [-(-size // GATE_CELLS) for size in x.shape[2:]]
    return functional.avg_pool2d(x, cell, ceil_mode=True, count_include_pad=False).flatten(1)


class Pooling:
    """Pooling of the representations of tasks that predict a vector from a sequence or a map.

    It has no parameters. Tasks with the same representation and the same pooling share one pooled tensor.

    Args:
        mask: `Trunk.mask` of a trunk of the sharing.
        pools: task → its pooling. The representation of a task without an entry is not pooled.
    """

    def __init__(self, mask: Callable[[Tensor], Tensor | None], pools: Mapping[str, Pool]) -> None:
        self.mask, self.pools = mask, dict(pools)

    def masks(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
        """Compute the valid positions of the trunk's output.

        Args:
            inputs: alias → inputs of the trunk, [B, *input_shape].

        Returns:
            Alias → bool [B, L]; None if all positions are valid.
        """
        return {alias: self.mask(x) for alias, x in inputs.items()}

    def pool(self, task: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """Pool the representation of a task.

        Args:
            task: the task.
            x: [B, L, F] or [B, F, h, w]; vectors [B, F] are left as they are.
            mask: the valid positions of a sequence, see `masks`.

        Returns:
            [B, F], or the representation itself if the task predicts a sequence or a map.
        """
        pool = self.pools.get(task)
        return x if pool is None or x.ndim == 2 else pool_representation(x, pool, mask)

    def apply(
        self, representations: Mapping[str, Tensor], inputs: Mapping[str, Tensor], alias_of: Mapping[str, str]
    ) -> dict[str, Tensor]:
        """Pool the representations.

        Args:
            representations: task → [B, L, F] or [B, F, h, w]; vectors [B, F] are left as they are.
            inputs: alias → inputs of the trunk, [B, *input_shape].
            alias_of: task → alias of its dataset.

        Returns:
            Task → [B, F], or the representation itself if the task predicts a sequence or a map.
        """
        masks = self.masks(inputs)
        pooled: dict[tuple[int, Pool], Tensor] = {}
        results: dict[str, Tensor] = {}
        for task, x in representations.items():
            pool = self.pools.get(task)
            if pool is None or x.ndim == 2:
                results[task] = x
                continue
            key = (id(x), pool)
            if key not in pooled:
                pooled[key] = pool_representation(x, pool, masks[alias_of[task]])
            results[task] = pooled[key]
        return results
