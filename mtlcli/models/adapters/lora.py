"""Low-rank adaptation (LoRA) and its multi-task forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mtlcli.models.adapters.base import Adapter, Adapters, Trained
from mtlcli.models.adapters.hydra_lora import HydraLoRAAdapter
from mtlcli.models.adapters.layer_maps import layer_map
from mtlcli.models.adapters.low_rank import LowRank, LowRankAdapter
from mtlcli.models.adapters.mtl_lora import MTLLoRAAdapter
from mtlcli.registry import adapters
from mtlcli.specs import Shape

Arrangement = Literal["shared", "per_task", "shared_and_per_task", "mtl_lora", "hydra"]
PROJECTIONS, TEMPERATURE = 3, 0.1
Rank = Annotated[int, Field(gt=0, le=10_000)]


@adapters.register("lora")
class LoRA(Adapters):
    """Low-rank adaptation of Linear and Conv2d layers: W x + (α/r) B A x, with the trunk's own W frozen.

    A is [r, inputs] and starts as the weight of a Linear layer of torch, B is [outputs, r] and starts as 0, so that the
    model starts as the trunk without adapters. A convolution is adapted as the linear map of its patches: A is a
    convolution to r channels, B one of 1×1. The arrangements:

        shared               one pair A, B for all tasks
        per_task             W x + (α/r) B_t A_t x: a pair for each task
        shared_and_per_task  W x + (α/r) (B A + B_t A_t) x: both
        mtl_lora             W x + (α/r) Σ_i softmax(w_t/τ)_i B_i Λ_t A x, i = 1 … n: A and the B_i are shared, the
                             r×r matrix Λ_t (initially the identity) and the n numbers w_t belong to the task
        hydra                W x + (α/r) Σ_i ω_i B_i A x, i = 1 … n, with ω = softmax(W_gᵀ x): all of it is shared, and
                             the router W_g mixes the B_i for each input (each token of a text, each position of a map)

    With `per_task`, `shared_and_per_task` and `mtl_lora`, tasks on the same examples share the pass through the trunk
    up to the first adapted stage; from there each task passes separately. They need the sharing `hard`; `shared` and
    `hydra` work with every sharing. Batch norm in the trunk keeps its statistics.

    Note:
        The equations of MTL-LoRA and HydraLoRA have no factor α/r; their official code does, and so do these. The
        initialization of Λ_t and w_t, and the defaults of n and τ, are those of MTL-LoRA's code for commonsense
        reasoning. HydraLoRA chooses n by clustering the training examples; here it is an option. The router receives x
        without dropout, as in its code. Its code has a load-balancing loss, off by default, which is left out here.

    References:
        Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022, arXiv:2106.09685, equation 3.
        Kalajdzievski, A rank stabilization scaling factor for fine-tuning with LoRA, 2023, arXiv:2312.03732.
        Yang et al., MTL-LoRA: low-rank adaptation for multi-task learning, AAAI 2025, arXiv:2410.09437.
        Tian et al., HydraLoRA: an asymmetric LoRA architecture for efficient fine-tuning, NeurIPS 2024,
            arXiv:2404.19245, equations 3 and 4.

    Args:
        tasks: names of the tasks.
        rank: rank r.
        alpha: α; the product is multiplied by α/r.
        rslora: whether to multiply by α/√r instead.
        dropout: dropout probability of the input of A.
        targets: layers to adapt: patterns of their names within the trunk, as for file names (`*.query`, `block1.*`);
            `*` also matches dots. Default: all Linear and Conv2d layers.
        arrangement: which tasks share an adapter, see above.
        up_projections: number n of matrices B_i; mtl_lora and hydra only. Default: 3.
        temperature: temperature τ of the weights of the B_i; mtl_lora only. Default: 0.1.
        train: parameters of the trunk itself that are trained with the adapters and shared by all tasks: `biases`,
            `norms` (the affine parameters of norm layers).

    Raises:
        ValueError: if an option is set that the arrangement doesn't have.
    """

    adapts = "Linear or Conv2d layer"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        rank: Rank = 8,
        alpha: PositiveFloat = 16.0,
        rslora: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        targets: Annotated[list[str], Field(min_length=1, max_length=1000)] = ["*"],  # noqa: B006 (never changed)
        arrangement: Arrangement = "shared",
        up_projections: PositiveInt | None = None,
        temperature: PositiveFloat | None = None,
        train: list[Trained] = [],  # noqa: B006 (never changed)
    ) -> None:
        super().__init__(tasks, targets, train)
        if up_projections is not None and arrangement not in ("mtl_lora", "hydra"):
            raise ValueError(f"up_projections: the arrangement {arrangement} has one matrix B; only mtl_lora and hydra "
                             "have several")  # fmt: skip
        if temperature is not None and arrangement != "mtl_lora":
            raise ValueError(f"temperature: the arrangement {arrangement} has none; only mtl_lora does")
        self.rank, self.dropout, self.arrangement = rank, dropout, arrangement
        self.scale = alpha / (math.sqrt(rank) if rslora else rank)
        self.up_projections = PROJECTIONS if up_projections is None else up_projections
        self.temperature = TEMPERATURE if temperature is None else temperature
        self.task_dependent = arrangement in ("per_task", "shared_and_per_task", "mtl_lora")

    def can_adapt(self, module: nn.Module, shape: Shape) -> bool:
        return layer_map(module) is not None

    def make(self, module: nn.Module, shape: Shape) -> Adapter:
        of_layer, like = layer_map(module), module.weight
        assert of_layer is not None and isinstance(like, Tensor)
        common = (of_layer, like.detach(), self.rank, self.scale, self.dropout)
        if self.arrangement == "mtl_lora":
            return MTLLoRAAdapter(self.route, *common, self.up_projections, self.temperature)
        if self.arrangement == "hydra":
            return HydraLoRAAdapter(self.route, *common, self.up_projections)
        shared, per_task = self.arrangement != "per_task", self.arrangement != "shared"
        return LowRankAdapter(self.route, lambda: LowRank(*common), shared, per_task)
