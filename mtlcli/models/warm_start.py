"""Transfer learning: what tasks share starts from a checkpoint, and may stay as it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtlcli.models.sharing.base import Sharing
from mtlcli.models.trunks.base import Trunk

SHOWN = 20  # keys that are named one by one


def warm_start(sharing: Sharing, state: Mapping[str, Tensor], source: str) -> None:
    """Load all but the heads (the trunk and its buffers) out of the state dict of a whole `MultiTaskModel`.

    source: where the state comes from, for messages. Strict: ValueError, before anything is changed, that names what is
    missing, left over, of another shape or type, or not finite.
    """
    check_trunk(sharing, state, source)
    found = _without_heads(state)
    if wrong := not_finite(found):
        raise ValueError(f"the trunk in {source} can't be used: {told(wrong)}")
    sharing.load_state_dict(found, strict=False)


def check_trunk(sharing: Sharing, state: Mapping[str, Tensor], source: str) -> None:
    """ValueError where `warm_start` couldn't load a state dict of these shapes; its tensors may be on `meta`."""
    own = {key: value for key, value in sharing.state_dict().items() if not key.startswith("heads.")}
    if problems := mismatches(own, _without_heads(state)):
        raise ValueError(
            f"the trunk in {source} isn't like this one: {told(problems)}. "
            "Give this trunk the options that one was trained with"
        )


def _without_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a sharing has but for its heads, out of the state dict of a whole model."""
    found = {key.removeprefix("sharing."): value for key, value in state.items() if key.startswith("sharing.")}
    return {key: value for key, value in found.items() if not key.startswith("heads.")}


def mismatches(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Every key of `found` that is missing, left over or of another shape or type than in `own`, in words."""
    both = [(key, value, found[key]) for key, value in own.items() if key in found]
    return [
        *(f"{key} is missing" for key in own if key not in found),
        *(f"{key} is left over" for key in found if key not in own),
        *(
            f"{key} is {_shape(there)}, and {_shape(here)} here"
            for key, here, there in both
            if here.shape != there.shape
        ),
        *(f"{key} is {there.dtype}, and {here.dtype} here" for key, here, there in both if here.dtype != there.dtype),
    ]


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Every key of floating numbers that aren't all finite, in words."""
    return [f"{key} holds NaN or infinity" for key, value in state.items() if not _finite(value)]


def told(wrong: list[str]) -> str:
    """The first of many keys that are wrong, and how many there are beside."""
    return "; ".join(wrong[:SHOWN]) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")


def _finite(tensor: Tensor) -> bool:
    """Of the extremes, which are NaN where one is: a tensor of all comparisons would take memory."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


def freeze(trunk: Trunk) -> Trunk:
    """The same trunk, kept as it is: no gradients, and it stays in evaluation mode when the model is set to train."""
    trunk.frozen = True
    trunk.requires_grad_(False)
    return trunk.eval()


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
