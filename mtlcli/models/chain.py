"""A network whose modules follow one another, cut into stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

MEANS: tuple[Any, ...] = ("mean", torch.mean, F.adaptive_avg_pool2d)  # over a map, as networks spell it


@dataclass(frozen=True)
class Link:
    """One operation of a chain: a module's (target: its path), a tensor's method (its name), or a function.

    further: its arguments beside the tensor that comes along the chain.
    """

    target: str | Callable[..., Any]
    is_module: bool
    further: tuple[Any, ...]
    keywords: dict[str, Any]

    def __call__(self, network: nn.Module, x: Tensor) -> Tensor:
        operation: Any = self.target
        if isinstance(self.target, str):
            operation = network.get_submodule(self.target) if self.is_module else getattr(Tensor, self.target)
        out: Tensor = operation(x, *self.further, **self.keywords)
        return out


Chain = dict[str, list[Link]]


def chain_of(network: nn.Module) -> Chain | None:
    """The network's stages in order, name → its operations; None where its top-level modules are no chain.

    torch.fx records what `forward` calls, so that all stages together are exactly what the network computes; what it
    does in training and in evaluation has to be the same but for what its modules do.

    A stage is a top-level module with a matrix of weights (convolutions, linear layers) and those without that follow
    it: norms, activation functions, pools. The mean over the maps begins a last stage.
    A stage is called as its last module, whose output is the stage's; but the first one `stem`, where it is several
    modules and others with weights follow, and one without weights `pool`.
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
    return {_name(network, groups, at): group for at, group in enumerate(groups)}


class _TopLevel(fx.Tracer):
    """Looks into the network's own `forward` alone."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _links(network: nn.Module) -> list[Link] | None:
    try:
        first, *nodes, last = _TopLevel().trace(network).nodes
    except (fx.proxy.TraceError, TypeError):  # what it calls depends on the values it is given
        return None
    links, before = [], first
    for node in nodes:
        further, keywords = tuple(node.args[1:]), dict(node.kwargs)
        inputs: list[fx.Node] = []
        fx.node.map_arg((further, keywords), inputs.append)
        if node.args[:1] != (before,) or inputs:
            return None
        assert node.op in ("call_module", "call_method", "call_function")
        links.append(Link(node.target, node.op == "call_module", further, keywords))
        before = node
    return links if last.args == (before,) else None


def _has_weights(network: nn.Module, links: Sequence[Link]) -> bool:
    modules = [network.get_submodule(str(link.target)) for link in links if link.is_module]
    return any(p.ndim > 1 for module in modules for p in module.parameters())


def _is_mean(network: nn.Module, link: Link) -> bool:
    if not link.is_module:
        return link.target in MEANS
    inner = network.get_submodule(str(link.target)).modules()
    return not _has_weights(network, [link]) and any(isinstance(module, nn.AdaptiveAvgPool2d) for module in inner)


def _is_full(network: nn.Module, group: Sequence[Link]) -> bool:
    """Whether another module with weights is no part of this stage."""
    return _has_weights(network, group) and not _is_mean(network, group[0])


def _name(network: nn.Module, groups: Sequence[Sequence[Link]], at: int) -> str:
    modules = [str(link.target) for link in groups[at] if link.is_module]
    if at == 0 and len(modules) > 1 and any(_is_full(network, group) for group in groups[1:]):
        return "stem"
    return modules[-1] if _has_weights(network, groups[at]) else "pool"
