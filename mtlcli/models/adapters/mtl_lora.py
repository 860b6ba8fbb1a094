"""Low-rank adapters of one layer with parts that differ by task, as in MTL-LoRA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtlcli.models.adapters.base import Adapter, LowRankUpdate, Route, each, initialize, shares
from mtlcli.models.adapters.layer_maps import LayerMap


class TaskTransform(nn.Module):
    """Parameters of a single task in MTL-LoRA.

    Args:
        like: weight of the layer, whose dtype and device the parameters have.
        rank: rank r.
        number: number n of matrices B_i.

    Attributes:
        transform: Λ_t, [r, r], the identity at the start.
        mixture: w_t, [n], the logits of the weights of the B_i.
    """

    def __init__(self, like: Tensor, rank: int, number: int) -> None:
        super().__init__()
        self.transform = nn.Parameter(torch.eye(rank, dtype=like.dtype, device=like.device))
        self.mixture = nn.Parameter(like.new_empty(number))
        initialize(self.mixture.unsqueeze(0))


class MTLLoRAAdapter(Adapter):
    """Adds scale · Σ_i softmax(w_t/τ)_i B_i Λ_t A x to the output of a layer, with B_i = 0 at the start.

    Args:
        route: the task in use.
        layer_map: map of the layer.
        like: weight of the layer, whose dtype and device the parameters have.
        rank: rank r.
        scale: factor of the sum.
        dropout: dropout probability of the input.
        number: number n of matrices B_i.
        temperature: τ.

    Attributes:
        a: A, [r, *inputs], shared by the tasks.
        b: the B_i, [n, outputs, r], shared by the tasks.
    """

    def __init__(
        self,
        route: Route,
        layer_map: LayerMap,
        like: Tensor,
        rank: int,
        scale: float,
        dropout: float,
        number: int,
        temperature: float,
    ) -> None:
        super().__init__(route)
        self.layer_map, self.scale, self.temperature = layer_map, scale, temperature
        self.a = nn.Parameter(like.new_empty(rank, *layer_map.inputs))
        self.b = nn.Parameter(like.new_zeros(number, layer_map.outputs, rank))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        initialize(self.a)
        self.tasks = each(route.tasks, lambda: TaskTransform(like, rank, number))

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """See `Adapter.forward`."""
        transform, b = self._task_matrices(self.route.task)
        z = self.layer_map.combine(self.layer_map.apply(self.dropout(x), self.a), transform)
        return output + self.layer_map.combine(z, b) * self.scale

    def _task_matrices(self, task: str) -> tuple[Tensor, Tensor]:
        """Return Λ_t [r, r] and the mean of the B_i with the weights of the task, [outputs, r]."""
        own = self.tasks[task]
        assert isinstance(own, TaskTransform)
        weights = shares(own.mixture / self.temperature, 0, self.b.dtype)
        return own.transform, (weights @ self.b.flatten(1)).view(self.b.shape[1:])

    def low_rank_update(self, task: str) -> LowRankUpdate | None:
        """See `Adapter.low_rank_update`: A becomes Λ_t A, and B the mean of the B_i."""
        transform, b = self._task_matrices(task)
        a = (transform @ self.a.flatten(1)).view(self.a.shape)
        return LowRankUpdate(a, b, self.scale, self.layer_map)
