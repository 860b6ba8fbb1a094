"""Selection of the layers and weights that a regularizer applies to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from mtlcli.errors import suggest
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.factorized import Factorized

LayerPatterns = Annotated[list[str], Field(min_length=1)]
"""Names of layers, or patterns of them, as for file names."""

WeightGroup = Literal["shared", "heads", "all"]
"""The weights of the trunks, of the heads, or of both."""


@dataclass(frozen=True)
class Layer:
    """A Linear or Conv2d layer of a trunk.

    Attributes:
        name: path of the layer within the trunk; preceded by the trunk's name and a dot if there are several trunks.
        module: the layer.
        trunk: the trunk.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    trunk: nn.Module

    def replace(self, module: nn.Module) -> None:
        """Replace the layer in its trunk, at each path if the trunk uses it several times.

        Args:
            module: the new module.
        """
        for path, candidate in list(self.trunk.named_modules(remove_duplicate=False)):
            if candidate is self.module:
                self.trunk.set_submodule(path, module)


def find_layers(subject: Subject, patterns: Sequence[str]) -> list[Layer]:
    """Find the Linear and Conv2d layers of the trunks whose names match at least one pattern.

    Args:
        subject: the regularized network.
        patterns: patterns of the names within a trunk, as for file names (`fc1`, `conv*`); `*` also matches dots.

    Returns:
        The layers, each once, in the order of the trunks, without layers that are already factorized.

    Raises:
        ValueError: if a pattern matches no layer, with the available layers in the message, or a trunk has adapters.
    """
    if any(_has_adapters(trunk) for trunk in subject.trunks.values()):
        raise ValueError(
            "the layers of the trunk are frozen, since it has adapters; of the regularizers of weights, `l1` and `l2` "
            "apply to the adapters"
        )
    layers: dict[str, list[Layer]] = {}  # by name within a trunk
    factorized: dict[str, None] = {}
    for trunk_name, trunk in subject.trunks.items():
        prefix = f"{trunk_name}." if len(subject.trunks) > 1 else ""
        for path, module in trunk.named_modules():
            if isinstance(module, Factorized):
                factorized[path] = None
            elif isinstance(module, nn.Linear | nn.Conv2d):
                layers.setdefault(path, []).append(Layer(prefix + path, module, trunk))
    for pattern in patterns:
        if not _filter_names(layers, pattern):
            taken = _filter_names(factorized, pattern)
            reason = (
                f"except {', '.join(taken)}, which is already factorized."
                if taken
                else f"of the trunk.{suggest(pattern, layers)}"
            )
            raise ValueError(
                f"layers: {pattern!r} matches no Linear or Conv2d {reason} Choose from: {', '.join(layers) or 'none'}"
            )
    wanted = {path for pattern in patterns for path in _filter_names(layers, pattern)}
    return [layer for path, same_name in layers.items() if path in wanted for layer in same_name]


def _has_adapters(module: nn.Module) -> bool:
    return bool(getattr(module, "adapted", False))


def _filter_names(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def collect_weights(subject: Subject, group: WeightGroup) -> list[nn.Parameter]:
    """Collect the weights of the trunks (`shared`), of the heads, or of both, without biases and norm layers.

    Of a trunk with adapters, whose own weights are frozen, it collects those that are trained.

    Args:
        subject: the regularized network.
        group: the weights to collect.

    Returns:
        The parameters with more than one dimension, each once.

    Raises:
        ValueError: if the group contains no weights.
    """
    trunks = subject.trunks.values() if group != "heads" else ()
    heads = subject.heads.values() if group != "shared" else ()
    weights = {
        id(p): p
        for module in [*trunks, *heads]
        for p in module.parameters()
        if p.ndim > 1 and (p.requires_grad or not _has_adapters(module))
    }
    if not weights:
        raise ValueError(f"on: {group} contains no weights (parameters with more than one dimension)")
    return list(weights.values())
