"""Transfer learning: load the trunks from a checkpoint, and freeze trunks and stems."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from mtlcli.models.sharing.base import Sharing
from mtlcli.models.stems.base import Stem
from mtlcli.models.trunks.base import Trunk

MAX_LISTED = 20  # differences that a message lists


def warm_start(sharing: Sharing, state: Mapping[str, Tensor], source: str, added: Collection[str] = ()) -> None:
    """Load everything but the heads from the state dict of a `MultiTaskModel`.

    Loading is strict: nothing is changed unless all keys, shapes and types match.

    Args:
        sharing: the sharing whose trunks receive the parameters and buffers.
        state: state dict of the whole model.
        source: origin of the state dict, for error messages.
        added: keys of the sharing's state dict that keep their values, such as those of adapters.

    Raises:
        ValueError: if keys are missing or unexpected, or have another shape or type, or values are not finite; the
            message lists them.
    """
    check_trunk(sharing, state, source, added)
    trunk_state = _without_heads(state)
    if problems := find_not_finite(trunk_state):
        raise ValueError(f"the trunk in {source} can't be used: {join_problems(problems)}")
    sharing.load_state_dict(trunk_state, strict=False)


def check_trunk(sharing: Sharing, state: Mapping[str, Tensor], source: str, added: Collection[str] = ()) -> None:
    """Check that `warm_start` can load a state dict, by its keys, shapes and types alone.

    Args:
        sharing: the sharing whose trunks would receive the parameters and buffers.
        state: state dict of the whole model; its tensors may be on `meta`.
        source: origin of the state dict, for error messages.
        added: keys of the sharing's state dict that keep their values, such as those of adapters.

    Raises:
        ValueError: if keys are missing or unexpected, or have another shape or type.
    """
    entries = sharing.state_dict().items()
    own = {key: value for key, value in entries if not key.startswith("heads.") and key not in added}
    if problems := find_mismatches(own, _without_heads(state)):
        raise ValueError(
            f"the trunk in {source} differs from this one: {join_problems(problems)}. "
            "Configure the trunk with the options that the checkpoint was trained with"
        )


def _without_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a sharing, except for its heads, from the state dict of a whole model."""
    entries = {key.removeprefix("sharing."): value for key, value in state.items() if key.startswith("sharing.")}
    return {key: value for key, value in entries.items() if not key.startswith("heads.")}


def find_mismatches(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Compare the keys, shapes and types of two state dicts.

    Args:
        own: state dict of the model.
        other: state dict to load.

    Returns:
        A description of each key of `other` that is missing or unexpected, or has another shape or type.
    """
    both = [(key, value, other[key]) for key, value in own.items() if key in other]
    return [
        *(f"{key} is missing" for key in own if key not in other),
        *(f"{key} is unexpected" for key in other if key not in own),
        *(
            f"{key} is {_format_shape(actual)}, expected {_format_shape(expected)}"
            for key, expected, actual in both
            if expected.shape != actual.shape
        ),
        *(
            f"{key} is {actual.dtype}, expected {expected.dtype}"
            for key, expected, actual in both
            if expected.dtype != actual.dtype
        ),
    ]


def find_not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return a description of each key of a state dict whose floating-point values are not all finite.

    Args:
        state: the state dict.

    Returns:
        The descriptions.
    """
    return [f"{key} contains NaN or infinity" for key, value in state.items() if not _is_finite(value)]


def join_problems(problems: list[str]) -> str:
    """Join descriptions to one text, with the number of those that are left out.

    Args:
        problems: descriptions, such as those of `find_mismatches`.

    Returns:
        The first `MAX_LISTED` descriptions, separated by semicolons.
    """
    omitted = len(problems) - MAX_LISTED
    return "; ".join(problems[:MAX_LISTED]) + (f"; and {omitted} more" if omitted > 0 else "")


def _is_finite(tensor: Tensor) -> bool:
    """Check the extremes, which are NaN if any value is: a mask of all values would take memory."""
    if tensor.is_meta or not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


Freezable = TypeVar("Freezable", Trunk, Stem)


def freeze(module: Freezable) -> Freezable:
    """Freeze a trunk or a stem: it receives no gradients and stays in evaluation mode.

    Args:
        module: the trunk or stem, which is changed in place.

    Returns:
        The same module.
    """
    module.frozen = True
    module.requires_grad_(False)
    return module.eval()


def _format_shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
