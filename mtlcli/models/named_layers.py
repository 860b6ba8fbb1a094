"""Layers of a trunk by name: selection by pattern, freezing, and the division of a network into layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn

from mtlcli.errors import suggest
from mtlcli.models.trunks.base import Trunk

MAX_LISTED = 40  # names that a message lists


def parameters_by_name(trunk: Trunk) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of every stage and of every layer of a trunk that has some.

    Args:
        trunk: the trunk, with its `input_shape`; its device may be `meta`.

    Returns:
        Name of a stage or layer → parameters. Those of a layer are also those of its stage.
    """
    named = {**trunk.stage_parameters(), **trunk.layer_parameters()}
    return {name: parameters for name, parameters in named.items() if parameters}


def select(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that a pattern selects.

    Args:
        names: names of stages and layers.
        pattern: a name, which also selects what is inside, as `layer1` selects `layer1.0`; or a shell pattern such as
            `layer.*` or `layer.[0-5]`.

    Returns:
        The selected names, in the given order.

    Raises:
        ValueError: the pattern selects nothing; the message has the nearest name and all names.
    """
    names = list(names)
    selected = [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
    if not selected:
        raise ValueError(
            f"the trunk has no stage or layer {pattern!r}.{suggest(pattern, names)} Choose from: {list_names(names)}"
        )
    return selected


def list_names(names: list[str]) -> str:
    """Return names for a message, at most `MAX_LISTED`."""
    return ", ".join(names[:MAX_LISTED]) + (f", and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def freeze_layers(trunk: Trunk, parameters: Iterable[nn.Parameter]) -> None:
    """Freeze some of a trunk's parameters: they receive no gradients, and their modules stay in evaluation mode.

    Modules all of whose parameters are frozen, and the modules inside them, compute as in evaluation, with fixed
    statistics of batch norm and without dropout. A module without parameters that is inside none of them, such as a
    dropout that several stages use, keeps its mode.

    Args:
        trunk: the trunk, which is changed in place.
        parameters: the parameters.
    """
    for parameter in parameters:
        parameter.requires_grad_(False)
    fixed: dict[nn.Module, None] = {}
    for module in trunk.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            fixed |= dict.fromkeys(module.modules())
    trunk.fixed = tuple(fixed)
    trunk.train(trunk.training)


def layers_of(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Divide the parameters of a network among its layers, in order.

    The layers are the top-level modules. A module that is a sequence (`nn.Sequential`, `nn.ModuleList`), or contains
    exactly one, is divided further, once, into the members of the sequence and its other modules. A module without
    matrices, such as a norm, belongs to the layer before it, as does a parameter outside of these modules; at the
    beginning, to the first layer.

    Args:
        network: the network, whose modules are defined in the order of their use.

    Returns:
        Path of the layer's module → parameters, in the order of `parameters()`.
    """
    paths = [path for path, module in _units(network) if _has_matrix(module)]
    layers: dict[str, list[nn.Parameter]] = {path: [] for path in paths}
    latest = paths[0] if paths else ""
    for name, parameter in network.named_parameters():
        latest = next((path for path in paths if name.startswith(f"{path}.")), latest)
        layers.setdefault(latest, []).append(parameter)
    return layers


def _units(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in network.named_children():
        if _is_sequence(module):
            yield from ((f"{path}.{name}", child) for name, child in module.named_children())
        elif sum(map(_is_sequence, module.children())) == 1:
            for name, child in module.named_children():
                inner = child.named_children() if _is_sequence(child) else [("", child)]
                yield from ((f"{path}.{name}.{each}".rstrip("."), unit) for each, unit in inner)
        else:
            yield path, module


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) and sum(_has_matrix(m) for m in module.children()) > 1


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())
