"""What one of TorchJD's aggregators remembers: it is in no state_dict that can be loaded, so it is looked for.

Its modules keep it in buffers that are None until the first step, and in plain attributes: numbers, NumPy arrays and a
`_state_key`, from which they see that what they remember doesn't fit any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, torch.dtype, torch.device)


def capture(aggregator: nn.Module) -> dict[str, Any]:
    """The buffers and plain attributes of the aggregator's modules, by path and name, as a checkpoint takes them."""
    return {
        path: {name: _encode(value) for name, value in _members(module).items() if _is_state(module, name, value)}
        for path, module in aggregator.named_modules()
    }


def restore(aggregator: nn.Module, state: dict[str, Any], device: torch.device) -> None:
    """Put an aggregator of the same options where `capture` found it, on this device."""
    modules = dict(aggregator.named_modules())
    for path, members in state.items():
        for name, value in members.items():
            setattr(modules[path], name, _decode(value, device))
        # NashMTL makes its problem at its first step only, and it can't be saved.
        if members.get("step") and hasattr(modules[path], "_init_optim_problem"):
            modules[path]._init_optim_problem()
    move(aggregator, lambda tensor: tensor.to(device, copy=True))


def move(aggregator: nn.Module, to: Callable[[Tensor], Tensor]) -> None:
    """Move the tensors of an aggregator: options such as `pref_vector`, which nn.Module would leave, and buffers.

    The buffers of the ones that compute on the CPU stay there: those whose `_state_key` doesn't have the device in it.
    """
    for module in aggregator.modules():
        key = getattr(module, "_state_key", None)
        stays = key is not None and not (isinstance(key, tuple) and any(isinstance(x, torch.device) for x in key))
        for name, value in _members(module).items():
            if isinstance(value, Tensor) and not (stays and name in module._buffers):
                setattr(module, name, to(value))


def _members(module: nn.Module) -> dict[str, Any]:
    """What a module has beside what every nn.Module has: plain attributes and buffers."""
    own = {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}
    return {**own, **module._buffers}


def _is_state(module: nn.Module, name: str, value: Any) -> bool:
    """Whether a member can change and can be saved; plain tensors are options."""
    if isinstance(value, Tensor):
        return name in module._buffers
    items = value if isinstance(value, tuple) else (value,)
    return all(item is None or isinstance(item, PLAIN) or _is_array(item) for item in items)


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype")


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if _is_array(value):
        return {"array": torch.as_tensor(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return {"device": str(value)} if isinstance(value, torch.device) else value


def _decode(value: Any, device: torch.device) -> Any:
    match value:
        case {"tuple": items}:
            return tuple(_decode(item, device) for item in items)
        case {"array": tensor}:
            return tensor.numpy(force=True).copy()
        case {"dtype": name}:
            return getattr(torch, name)
        case {"device": _}:
            return device
    return value
