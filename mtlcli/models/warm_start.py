"""Transfer learning: what tasks share starts from a checkpoint, and may stay as it is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mtlcli.models.sharing_base import Sharing
from mtlcli.models.trunk import Trunk


def warm_start(sharing: Sharing, state: Mapping[str, Tensor], source: str) -> None:
    """Load all but the heads (the trunk and its buffers) out of the state dict of a whole `MultiTaskModel`.

    source: where the state comes from, for messages. Strict: ValueError that names every key that is missing, left
    over or of another shape, before anything is changed.
    """
    found = {key.removeprefix("sharing."): value for key, value in state.items() if key.startswith("sharing.")}
    found = {key: value for key, value in found.items() if not key.startswith("heads.")}
    own = {key: value for key, value in sharing.state_dict().items() if not key.startswith("heads.")}
    if problems := mismatches(own, found):
        raise ValueError(
            f"the trunk in {source} isn't like this one: {'; '.join(problems)}. "
            "Give this trunk the options that one was trained with"
        )
    sharing.load_state_dict(found, strict=False)


def mismatches(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Every key of `found` that is missing, left over or of another shape than in `own`, in words."""
    return [
        *(f"{key} is missing" for key in own if key not in found),
        *(f"{key} is left over" for key in found if key not in own),
        *(
            f"{key} is {_shape(found[key])}, and {_shape(value)} here"
            for key, value in own.items()
            if key in found and found[key].shape != value.shape
        ),
    ]


def freeze(trunk: Trunk) -> Trunk:
    """The same trunk, kept as it is: no gradients, and it stays in evaluation mode when the model is set to train."""
    trunk.frozen = True
    trunk.requires_grad_(False)
    return trunk.eval()


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
