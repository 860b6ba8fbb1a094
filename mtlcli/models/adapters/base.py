"""Base classes of the adapters: modules that change the outputs of layers whose own weights are frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlcli.models.adapters.layer_maps import LayerMap
from mtlcli.models.sharing.base import AnyNameModuleDict
from mtlcli.specs import Shape

ADAPTER = "adapter"  # name of an adapter within its layer
Trained = Literal["biases", "norms"]
"""Parameters of the trunk itself that are trained with the adapters."""


class Route:
    """Task whose adapters are in use. All adapters of a model have the same route.

    Args:
        tasks: names of the tasks.

    Attributes:
        task: the task; a sharing that passes each task separately sets it before each pass.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self.task = self.tasks[0]

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return contexts for a layer's pass and for its recomputation in the backward pass, with the same task.

        They are the `context_fn` of `torch.utils.checkpoint`.
        """
        return nullcontext(), self._using(self.task)

    @contextmanager
    def _using(self, task: str) -> Iterator[None]:
        before, self.task = self.task, task
        try:
            yield
        finally:
            self.task = before


@dataclass(frozen=True)
class LowRankUpdate:
    """Change of a layer's weight, ΔW = scale · B A.

    Attributes:
        a: A, [r, *inputs of a layer].
        b: B, [outputs of the layer, r].
        scale: factor of the product.
        layer_map: the map of the layer.
    """

    a: Tensor
    b: Tensor
    scale: float
    layer_map: LayerMap

    def weight(self) -> Tensor:
        """Return ΔW in the shape of the layer's weight, computed in float64."""
        product = self.b.double() @ self.a.double().flatten(1) * self.scale
        return self.layer_map.to_weight(product.view(-1, *self.layer_map.inputs)).to(self.b.dtype)


class Adapter(nn.Module, ABC):
    """Base class of the modules that change the output of one layer.

    Args:
        route: the task in use.

    Attributes:
        tasks: task → the parameters that belong to it alone; empty if all tasks use the same parameters.
    """

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.route = route
        self.tasks = AnyNameModuleDict()

    @abstractmethod
    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Change the output of the layer.

        Args:
            x: input of the layer.
            output: its output.

        Returns:
            The changed output, of the same shape.
        """

    def low_rank_update(self, task: str) -> LowRankUpdate | None:
        """Return the change of the layer's weight that has the effect of the adapter.

        Args:
            task: the task.

        Returns:
            The change; None if no change of the weight has this effect.
        """
        return None


class Adapters(ABC):
    """Base class of the adapters of a model.

    A subclass chooses the modules that it can adapt, and creates the adapter of each.

    Args:
        tasks: names of the tasks.
        targets: patterns of the names of modules within the trunk, as for file names; `*` also matches dots.
        train: parameters of the trunk itself that are trained.

    Attributes:
        task_dependent: whether the adapters of the tasks differ.
        adapts: the modules that it can adapt, in words.
    """

    task_dependent: bool = False
    adapts: str = "module"

    def __init__(self, tasks: Sequence[str], targets: Sequence[str], train: Sequence[Trained]) -> None:
        self.route = Route(tasks)
        self.targets, self.train = tuple(targets), tuple(train)

    @abstractmethod
    def can_adapt(self, module: nn.Module, shape: Shape) -> bool:
        """Check whether a module of the trunk can have an adapter.

        Args:
            module: the module.
            shape: shape of its output for one example.

        Returns:
            Whether it can.
        """

    @abstractmethod
    def make(self, module: nn.Module, shape: Shape) -> Adapter:
        """Create the adapter of a module.

        Args:
            module: the module.
            shape: shape of its output for one example.

        Returns:
            The adapter.
        """


def install(module: nn.Module, adapter: Adapter) -> None:
    """Make a module return its output as changed by an adapter, which becomes its submodule `adapter`.

    The parameters of the module keep their names.

    Args:
        module: the module.
        adapter: its adapter. In an `nn.Sequential`, which calls its submodules one after another, it is the last one.
    """
    module.add_module(ADAPTER, adapter)
    if type(module).forward is not nn.Sequential.forward:
        module.register_forward_hook(_adapt)


def uninstall(module: nn.Module) -> None:
    """Remove the adapter of a module.

    Args:
        module: the module.
    """
    delattr(module, ADAPTER)
    for key in [key for key, hook in module._forward_hooks.items() if hook is _adapt]:
        del module._forward_hooks[key]


def _adapt(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    adapted: Tensor = module.adapter(inputs[0], output)
    return adapted


def adapters_in(root: nn.Module) -> dict[str, Adapter]:
    """Collect the adapters in a module.

    Args:
        root: a trunk, a sharing or a model.

    Returns:
        Path of each adapted module → its adapter, in order.
    """
    ending = f".{ADAPTER}"
    return {path.removesuffix(ending): module for path, module in root.named_modules() if isinstance(module, Adapter)}


def adapter_keys(root: nn.Module) -> set[str]:
    """Collect the keys of a module's state dict that belong to adapters.

    Args:
        root: a trunk, a sharing or a model.

    Returns:
        The keys.
    """
    adapters = tuple(f"{name}." for name, module in root.named_modules() if isinstance(module, Adapter))
    return {key for key in root.state_dict() if key.startswith(adapters)}


def frozen_keys(trunk: nn.Module) -> list[str]:
    """Collect the keys of an adapted trunk's state dict that training doesn't change: frozen parameters and buffers.

    Args:
        trunk: the trunk, whose batch norm keeps its statistics.

    Returns:
        The keys, in order.
    """
    trained = {name for name, parameter in trunk.named_parameters() if parameter.requires_grad}
    return [key for key in trunk.state_dict() if key not in trained]


def initialize(matrix: Tensor) -> None:
    """Draw the entries of a matrix as torch does those of a Linear layer, uniformly from ±1/√(number of columns)."""
    nn.init.kaiming_uniform_(matrix, a=5**0.5)


def shares(logits: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Return the softmax, computed in float32 at least."""
    return torch.softmax(logits.float() if logits.dtype != torch.float64 else logits, dim).to(dtype)


def each(tasks: Sequence[str], make: Callable[[], nn.Module]) -> AnyNameModuleDict:
    """Create a module for each task."""
    return AnyNameModuleDict({task: make() for task in tasks})
