"""The parameters that the outputs of a module's stages depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.models.modules import evaluation_mode, shape_errors


def divide_parameters(
    trunk: nn.Module,
    encoder: nn.Module,
    start: Callable[[], Tensor],
    stages: Callable[[], Mapping[str, Callable[[Tensor], Tensor]]],
) -> dict[str, list[nn.Parameter]]:
    """Divide the parameters of a trunk among its encoder and its stages; see `Trunk.stage_parameters`.

    Args:
        trunk: the trunk, which is left unchanged.
        encoder: its encoder.
        start: returns a blank example.
        stages: returns name → stage, in order.

    Returns:
        Name → parameters; `encoder` and `other` only where there are such parameters.
    """
    stage_of: dict[Tensor, str] = dict.fromkeys(encoder.parameters(), ENCODER)
    for name, parameters in parameters_reached(trunk, lambda: encoder(start()), stages).items():
        for parameter in parameters:
            stage_of.setdefault(parameter, name)
    stage_of |= stages_around(trunk, stage_of)
    divided: dict[str, list[nn.Parameter]] = {name: [] for name in (ENCODER, *stages(), OTHER)}
    for own in trunk.parameters():
        divided[stage_of.get(own, OTHER)].append(own)
    return {name: listed for name, listed in divided.items() if listed or name not in (ENCODER, OTHER)}


def parameters_reached(
    module: nn.Module, start: Callable[[], Tensor], stages: Callable[[], Mapping[str, Callable[[Tensor], Tensor]]]
) -> dict[str, set[Tensor]]:
    """Find the leaves of the graph of each stage's output, with all parameters made trainable temporarily.

    Args:
        module: the module, which is left unchanged.
        start: computes the input of the first stage.
        stages: returns name → stage, in order.

    Returns:
        Name → parameters.
    """
    fixed = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    reached: dict[str, set[Tensor]] = {}
    try:
        with evaluation_mode(module), shape_errors(), torch.enable_grad():
            for parameter in fixed:
                parameter.requires_grad_(True)
            x = start()
            for name, stage in stages().items():
                x = stage(x.detach())
                reached[name] = _leaves(x)
    finally:
        for parameter in fixed:
            parameter.requires_grad_(False)
    return reached


def _leaves(output: Tensor) -> set[Tensor]:
    """Return the leaves of the autograd graph of a tensor."""
    leaves: set[Tensor] = set()
    nodes, visited = [output.grad_fn], {None}
    while nodes:
        node: Any = nodes.pop()
        if node not in visited:
            visited.add(node)
            nodes += [following for following, _ in node.next_functions]
            if hasattr(node, "variable"):  # AccumulateGrad
                leaves.add(node.variable)
    return leaves


def stages_around(trunk: nn.Module, stage_of: Mapping[Tensor, str]) -> dict[Tensor, str]:
    """Return the stages of parameters without one, from the modules that contain them.

    Args:
        trunk: the trunk.
        stage_of: parameter → stage, of some of its parameters.

    Returns:
        Parameter → stage of the other parameters in the smallest module with such, if these belong to one stage.
    """
    modules, around = dict(trunk.named_modules()), dict[Tensor, str]()
    for path, parameter in trunk.named_parameters():
        stages: set[str] = set()
        while parameter not in stage_of and not stages and (path := path.rpartition(".")[0]):
            stages = {stage_of[other] for other in modules[path].parameters() if other in stage_of}
        if len(stages) == 1:
            around[parameter] = stages.pop()
    return around


ENCODER, OTHER = "encoder", "other"  # entries of `divide_parameters` that are not stages
