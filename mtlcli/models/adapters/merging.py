"""Merging of adapters into the weights of their layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtlcli.models.adapters.base import LowRankUpdate, adapters_in, uninstall
from mtlcli.models.adapters.layer_maps import layer_map

SHARED = (".adapter.shared.a", ".adapter.shared.b")  # ends of the keys of a shared low-rank adapter
INSIDE = ".adapter."  # in the keys of all adapters


def low_rank_updates(root: nn.Module, task: str) -> dict[str, LowRankUpdate]:
    """Return the changes of weights that have the effect of the adapters of a task.

    Args:
        root: the trunk, sharing or model with the adapters.
        task: the task.

    Returns:
        Path of each adapted layer → its change.

    Raises:
        ValueError: if no change of the weights has the effect of an adapter.
    """
    updates = {path: adapter.low_rank_update(task) for path, adapter in adapters_in(root).items()}
    if missing := [path for path, update in updates.items() if update is None]:
        raise ValueError(
            f"the adapters ({missing[0]}, …) can't be written as changes of weights: what they add depends on the "
            "input in another way"
        )
    return {path: update for path, update in updates.items() if update is not None}


@torch.no_grad()
def merge(root: nn.Module, task: str) -> None:
    """Replace the adapters of a task by the changes of the weights that have their effect.

    The adapters are removed, so the other tasks can't be used afterwards if theirs differ.

    Args:
        root: the trunk, sharing or model with the adapters, which is changed in place.
        task: the task.

    Raises:
        ValueError: if no change of the weights has the effect of an adapter. Nothing is changed then.
    """
    for path, update in low_rank_updates(root, task).items():
        layer = root.get_submodule(path)
        assert isinstance(layer.weight, Tensor)
        layer.weight += update.weight()
        uninstall(layer)


@torch.no_grad()
def merge_state(sharing: nn.Module, state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Merge the low-rank adapters in the state dict of another model, shared by its tasks, into the weights.

    Args:
        sharing: a sharing with the same trunk.
        state: state dict of a `MultiTaskModel`; its tensors may be on `meta`.
        scale: factor of the product B A in that model.

    Returns:
        The state dict without adapters. What doesn't have the shapes of the trunk is left as it is.
    """
    merged = {key: value for key, value in state.items() if INSIDE not in key}
    layers = dict(sharing.named_modules())
    for key in (key for key in state if key.endswith(SHARED[0])):
        name = key.removesuffix(SHARED[0])
        layer = layers.get(name.removeprefix("sharing."))
        of_layer = None if layer is None else layer_map(layer)
        a, b, weight = state[key], state.get(f"{name}{SHARED[1]}"), merged.get(f"{name}.weight")
        if layer is None or of_layer is None or b is None or weight is None or weight.shape != layer.weight.shape:
            continue
        if a.shape[1:] == of_layer.inputs and b.shape == (of_layer.outputs, len(a)):
            merged[f"{name}.weight"] = weight + LowRankUpdate(a, b, scale, of_layer).weight()
    return merged
