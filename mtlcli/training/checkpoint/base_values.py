"""Values of a model that a checkpoint leaves out, since its base gives them: left out, and filled in again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mtlcli.errors import ConfigError
from mtlcli.models.warm_start import join_problems
from mtlcli.training.checkpoint.base_files import BaseReference, find_base
from mtlcli.training.checkpoint.file import load_checkpoint, plain

REFERENCE = "reference"  # entry of a checkpoint


def hash_value(value: Tensor) -> str:
    """Return the SHA-256 of the type, the shape and the values of a tensor."""
    content = value.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{content.dtype} {list(content.shape)}".encode())
    digest.update(content.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def leave_out_base(payload: dict[str, Any], reference: BaseReference) -> dict[str, Any]:
    """Leave the values of the base out of the content of a checkpoint.

    Args:
        payload: the content, whose `model` may be on any device.
        reference: the base. A value that is no longer that of the base is kept.

    Returns:
        The content, with an entry `reference`.
    """
    state: Mapping[str, Tensor] = payload["model"]
    values = {key: digest for key, digest in reference.values.items() if hash_value(state[key]) == digest}
    if not values:
        return {**payload, "model": plain(dict(state))}
    reference = replace(reference, values=values)
    base = payload.get("base")
    if base is not None and reference.tokenizer is not None:
        payload = {**payload, "base": {**base, "tokenizer": None}}
    kept = {key: value for key, value in state.items() if key not in values}
    return {**payload, "model": plain(kept), REFERENCE: reference.to_dict()}


def fill_in_base(payload: Mapping[str, Any], own: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint, with the values that it leaves out.

    Args:
        payload: the content of the checkpoint.
        own: state dict of a model that is built from the base. Values on `meta` are not compared.
        source: the checkpoint, for messages.

    Returns:
        The state dict, complete.

    Raises:
        ConfigError: if the model lacks values, or has others than those of the base.
    """
    state: dict[str, Tensor] = payload["model"]
    if REFERENCE not in payload:
        return state
    reference = BaseReference.from_dict(payload[REFERENCE], source)
    missing = {key: digest for key, digest in reference.values.items() if key not in state}
    if unknown := [key for key in missing if key not in own]:
        raise ConfigError(
            f"{source} refers to the weights {join_problems(unknown)} of its base, {reference.describe()}, and this "
            "model has none of these names"
        )
    differing = [key for key, digest in missing.items() if not own[key].is_meta and hash_value(own[key]) != digest]
    if differing:
        raise ConfigError(
            f"{source} refers to weights of its base, {reference.describe()}, which have other values here: "
            f"{join_problems(differing)}"
        )
    return {**state, **{key: own[key].detach() for key in missing}}


def complete_trunk(payload: Mapping[str, Any], own: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint that a trunk is initialized from, with the values that it leaves out.

    Args:
        payload: the content of the checkpoint, with a reference.
        own: state dict of the model that is initialized; it has the values of a pretrained model that it is built from.
        source: the checkpoint, for messages.

    Returns:
        The state dict, complete.

    Raises:
        ConfigError: as `fill_in_base`, and if a checkpoint that this one refers to is not found.
    """
    reference = BaseReference.from_dict(payload[REFERENCE], source)
    if reference.role == "init_from":
        (path,) = find_base(reference, None, source)
        base = load_checkpoint(path)
        own = complete_trunk(base, own, str(path)) if REFERENCE in base else base["model"]
    return fill_in_base(payload, own, source)
