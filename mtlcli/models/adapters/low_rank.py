"""Low-rank adapters of one layer, shared by the tasks, one for each task, or both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mtlcli.models.adapters.base import Adapter, LowRankUpdate, Route, each, initialize
from mtlcli.models.adapters.layer_maps import LayerMap


class LowRank(nn.Module):
    """The map x ↦ scale · B A x, with B = 0 at the start.

    Args:
        layer_map: map of the layer.
        like: weight of the layer, whose dtype and device the matrices have.
        rank: rank r.
        scale: factor of the product.
        dropout: dropout probability of the input.

    Attributes:
        a: A, [r, *inputs].
        b: B, [outputs, r].
    """

    def __init__(self, layer_map: LayerMap, like: Tensor, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.layer_map, self.scale = layer_map, scale
        self.a = nn.Parameter(like.new_empty(rank, *layer_map.inputs))
        self.b = nn.Parameter(like.new_zeros(layer_map.outputs, rank))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        initialize(self.a)

    def forward(self, x: Tensor) -> Tensor:
        """Compute scale · B A x at each position of the layer's output."""
        return self.layer_map.combine(self.layer_map.apply(self.dropout(x), self.a), self.b) * self.scale


class LowRankAdapter(Adapter):
    """Adds the outputs of a shared low-rank map and of that of the task to the output of a layer.

    Args:
        route: the task in use.
        make: creates a low-rank map.
        shared: whether there is a map that all tasks share.
        per_task: whether each task has a map of its own.
    """

    def __init__(self, route: Route, make: Callable[[], LowRank], shared: bool, per_task: bool) -> None:
        super().__init__(route)
        self.shared = make() if shared else None
        if per_task:
            self.tasks = each(route.tasks, make)

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """See `Adapter.forward`."""
        if self.shared is not None:
            output = output + self.shared(x)
        return output + self.tasks[self.route.task](x) if len(self.tasks) else output

    def low_rank_update(self, task: str) -> LowRankUpdate | None:
        """See `Adapter.low_rank_update`. The ranks of two maps add up."""
        maps = [] if self.shared is None else [self.shared]
        if len(self.tasks):
            own = self.tasks[task]
            assert isinstance(own, LowRank)
            maps.append(own)
        a, b = torch.cat([low_rank.a for low_rank in maps]), torch.cat([low_rank.b for low_rank in maps], 1)
        return LowRankUpdate(a, b, maps[0].scale, maps[0].layer_map)
