"""The parameters that the outputs of a module's stages depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.models.modules import evaluation_mode, shape_errors


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
