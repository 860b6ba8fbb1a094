"""Bottleneck adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.config.options import Width
from mtlcli.models.adapters.base import Adapter, Adapters, Route, Trained, each
from mtlcli.registry import adapters
from mtlcli.specs import Shape

DEVIATION = 0.01  # standard deviation of the initial weights


@adapters.register("houlsby")
class Houlsby(Adapters):
    """Bottleneck adapters after modules of a frozen trunk: h + W_up f(W_down h + b_down) + b_up.

    W_down is [bottleneck, width] and W_up [width, bottleneck]. An adapter follows each matching module and changes its
    output. The outputs can be vectors, sequences [B, L, width] or maps [B, width, h, w]; those of maps are adapted at
    each position. In a transformer, the paper places an adapter after the projection of the attention and after that of
    the feed-forward network, in front of the residual connection: `targets: ["*.output.dense"]` in BERT.

    With `arrangement: per_task`, each task has adapters of its own. Tasks on the same examples share the pass through
    the trunk up to the first adapted stage; from there each task passes separately. It needs the sharing `hard`. Batch
    norm in the trunk keeps its statistics.

    Note:
        The weights start from a normal distribution with standard deviation 0.01, truncated at two standard deviations,
        and the biases as 0, so that the model starts close to the trunk without adapters. The paper also trains the
        parameters of the layer norms, for each task; here `train: [norms]` does so, for all tasks together. The paper
        doesn't name f; its official code uses GELU.

    References:
        Houlsby et al., Parameter-efficient transfer learning for NLP, ICML 2019, arXiv:1902.00751, section 2.1.

    Args:
        tasks: names of the tasks.
        targets: modules that an adapter follows: patterns of their names within the trunk, as for file names
            (`*.output.dense`, `block*`); `*` also matches dots.
        bottleneck: width of the bottleneck.
        activation: f.
        arrangement: `shared` for one adapter for all tasks, `per_task` for one for each.
        train: parameters of the trunk itself that are trained with the adapters and shared by all tasks: `biases`,
            `norms` (the affine parameters of norm layers).
    """

    adapts = "module with one output of vectors, sequences or maps"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        targets: Annotated[list[str], Field(min_length=1, max_length=1000)],
        bottleneck: Width = 64,
        activation: Literal["gelu", "relu", "silu"] = "gelu",
        arrangement: Literal["shared", "per_task"] = "shared",
        train: list[Trained] = [],  # noqa: B006 (never changed)
    ) -> None:
        super().__init__(tasks, targets, train)
        self.bottleneck, self.activation = bottleneck, activation
        self.task_dependent = arrangement == "per_task"

    def can_adapt(self, module: nn.Module, shape: Shape) -> bool:
        return len(shape) in (1, 2, 3)

    def make(self, module: nn.Module, shape: Shape) -> Adapter:
        is_map = len(shape) == 3
        width, like = shape[0 if is_map else -1], next(iter(module.parameters()), None)

        def make_bottleneck() -> Bottleneck:
            made = Bottleneck(width, self.bottleneck, self.activation, is_map)
            return made if like is None else made.to(like.device, like.dtype)

        return HoulsbyAdapter(self.route, make_bottleneck, self.task_dependent)


class Bottleneck(nn.Module):
    """The map h ↦ W_up f(W_down h + b_down) + b_up.

    Args:
        width: width of h.
        bottleneck: width of the bottleneck.
        activation: name of f in `torch.nn.functional`.
        is_map: whether h is a map [B, width, h, w] instead of [B, …, width].
    """

    def __init__(self, width: int, bottleneck: int, activation: str, is_map: bool) -> None:
        super().__init__()
        self.down: nn.Module = nn.Conv2d(width, bottleneck, 1) if is_map else nn.Linear(width, bottleneck)
        self.up: nn.Module = nn.Conv2d(bottleneck, width, 1) if is_map else nn.Linear(bottleneck, width)
        self.activation: Callable[[Tensor], Tensor] = getattr(F, activation)
        for layer in (self.down, self.up):
            assert isinstance(layer.weight, Tensor) and isinstance(layer.bias, Tensor)
            nn.init.trunc_normal_(layer.weight, std=DEVIATION, a=-2 * DEVIATION, b=2 * DEVIATION)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Apply the map."""
        change: Tensor = self.up(self.activation(self.down(h)))
        return change


class HoulsbyAdapter(Adapter):
    """Adds the output of a bottleneck to the output of a module.

    Args:
        route: the task in use.
        make: creates a bottleneck.
        per_task: whether each task has its own.
    """

    def __init__(self, route: Route, make: Callable[[], Bottleneck], per_task: bool) -> None:
        super().__init__(route)
        self.shared = None if per_task else make()
        if per_task:
            self.tasks = each(route.tasks, make)

    def forward(self, x: Tensor, output: Tensor | None = None) -> Tensor:
        """See `Adapter.forward`. As the last step of an `nn.Sequential`, it receives the output of the others alone."""
        h = x if output is None else output
        change: Tensor = (self.tasks[self.route.task] if self.shared is None else self.shared)(h)
        return h + change
