"""Division of a network into a chain of stages, from the calls that torch.fx records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

MEANS: tuple[Any, ...] = ("mean", torch.mean, F.adaptive_avg_pool2d)  # operations for the mean over a feature map


@dataclass(frozen=True)
class Link:
    """One operation of a chain: a call of a module, of a method of the tensor, or of a function.

    Attributes:
        target: path of the module, name of the method, or the function.
        is_module: whether `target` is the path of a module.
        further: positional arguments after the tensor.
        keywords: keyword arguments.
    """

    target: str | Callable[..., Any]
    is_module: bool
    further: tuple[Any, ...]
    keywords: dict[str, Any]

    def __call__(self, network: nn.Module, x: Tensor) -> Tensor:
        """Apply the operation to a tensor, with the modules of the network."""
        operation: Any = self.target
        if isinstance(self.target, str):
            operation = network.get_submodule(self.target) if self.is_module else getattr(Tensor, self.target)
        out: Tensor = operation(x, *self.further, **self.keywords)
        return out


Chain = dict[str, list[Link]]
"""Name of a stage → its operations, in order."""


def chain_of(network: nn.Module) -> Chain | None:
    """Split a network into a chain of stages.

    torch.fx records the calls of `forward`, so that all stages together compute exactly what the network computes. The
    calls must be the same in training and in evaluation mode.

    A stage consists of a top-level module with a weight matrix (convolutions, linear layers) and the following modules
    without one: norms, activation functions, pools. The mean over the feature maps begins the last stage. A stage has
    the name of its last module with two exceptions: the first stage is `stem` if it has several modules and other
    stages with weights follow, and a stage without weights is `pool`.

    Args:
        network: the network, whose training mode is left unchanged.

    Returns:
        Name → operations of each stage, in order; None if the top-level modules are not a chain.
    """
    training = network.training
    links, evaluated = (_links(network.train(mode)) for mode in (True, False))
    network.train(training)
    if links is None or links != evaluated:
        return None
    groups: list[list[Link]] = []
    for link in links:
        if not groups or _is_mean(network, link) or (_has_weights(network, [link]) and _is_full(network, groups[-1])):
            groups.append([])
        groups[-1].append(link)
    return {_name(network, groups, index): group for index, group in enumerate(groups)}


class _TopLevel(fx.Tracer):
    """A tracer that records the calls of the network's own `forward` only."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return True: no module is traced further."""
        return True


def run_chain(network: nn.Module, chain: Chain, x: Tensor) -> Tensor:
    """Apply all stages of a chain to a tensor, with the modules of the network."""
    for links in chain.values():
        for link in links:
            x = link(network, x)
    return x


def begins_with_mean(network: nn.Module, links: Sequence[Link]) -> bool:
    """Return whether the operations of a stage begin with the mean over the feature maps."""
    return _is_mean(network, links[0])


def _links(network: nn.Module) -> list[Link] | None:
    try:
        first, *nodes, last = _TopLevel().trace(network).nodes
    except (fx.proxy.TraceError, TypeError):  # the calls depend on the values of the input
        return None
    links, previous = [], first
    for node in nodes:
        further, keywords = tuple(node.args[1:]), dict(node.kwargs)
        inputs: list[fx.Node] = []
        fx.node.map_arg((further, keywords), inputs.append)
        if node.args[:1] != (previous,) or inputs:
            return None
        assert node.op in ("call_module", "call_method", "call_function")
        links.append(Link(node.target, node.op == "call_module", further, keywords))
        previous = node
    return links if last.args == (previous,) else None


def _has_weights(network: nn.Module, links: Sequence[Link]) -> bool:
    modules = [network.get_submodule(str(link.target)) for link in links if link.is_module]
    return any(p.ndim > 1 for module in modules for p in module.parameters())


def _is_mean(network: nn.Module, link: Link) -> bool:
    if not link.is_module:
        return link.target in MEANS
    inner = network.get_submodule(str(link.target)).modules()
    return not _has_weights(network, [link]) and any(isinstance(module, nn.AdaptiveAvgPool2d) for module in inner)


def _is_full(network: nn.Module, group: Sequence[Link]) -> bool:
    """Return whether a further module with weights begins a new stage."""
    return _has_weights(network, group) and not _is_mean(network, group[0])


def _name(network: nn.Module, groups: Sequence[Sequence[Link]], index: int) -> str:
    modules = [str(link.target) for link in groups[index] if link.is_module]
    if index == 0 and len(modules) > 1 and any(_is_full(network, group) for group in groups[1:]):
        return "stem"
    return modules[-1] if _has_weights(network, groups[index]) else "pool"
