"""Low-rank adapters of one layer with several matrices B and a router, as in HydraLoRA."""

from __future__ import annotations

from torch import Tensor, nn

from mtlcli.models.adapters.base import Adapter, Route, initialize, shares
from mtlcli.models.adapters.layer_maps import LayerMap


class HydraLoRAAdapter(Adapter):
    """Adds scale · Σ_i ω_i B_i A x with ω = softmax(W_gᵀ x) to the output of a layer, with B_i = 0 at the start.

    Args:
        route: the task in use, on which the adapter doesn't depend.
        layer_map: map of the layer.
        like: weight of the layer, whose dtype and device the parameters have.
        rank: rank r.
        scale: factor of the sum.
        dropout: dropout probability of the input of A.
        number: number N of matrices B_i.

    Attributes:
        a: A, [r, *inputs].
        b: the B_i, [outputs, N, r].
        router: W_gᵀ, [N, *inputs].
    """

    def __init__(
        self, route: Route, layer_map: LayerMap, like: Tensor, rank: int, scale: float, dropout: float, number: int
    ) -> None:
        super().__init__(route)
        self.layer_map, self.scale = layer_map, scale
        self.a = nn.Parameter(like.new_empty(rank, *layer_map.inputs))
        self.b = nn.Parameter(like.new_zeros(layer_map.outputs, number, rank))
        self.router = nn.Parameter(like.new_empty(number, *layer_map.inputs))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        initialize(self.a)
        initialize(self.router)

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """See `Adapter.forward`."""
        channels = self.layer_map.channels % output.dim()
        z = self.layer_map.apply(self.dropout(x), self.a)
        gates = shares(self.layer_map.apply(x, self.router), channels, z.dtype)
        mixed = (gates.unsqueeze(channels + 1) * z.unsqueeze(channels)).flatten(channels, channels + 1)
        return output + self.layer_map.combine(mixed, self.b.flatten(1)) * self.scale
