"""Digests of checkpoints, for bitwise comparisons of runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli.training.checkpoint.file import load_checkpoint


def digest_checkpoint(path: Path) -> dict[str, str]:
    """Return the digest of each entry of a checkpoint, without times and values that may differ."""
    payload = load_checkpoint(path)
    for timing in ("seconds", "seconds_per_epoch"):
        del payload["progress"][timing]
    return {name: digest(value) for name, value in payload.items() if name != "config"}


def digest(value: Any) -> str:
    """Return the SHA-256 of plain data: types, structure and all bits of the tensors."""
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        state.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        state.update(value.detach().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, dict):
        state.update(f"dict {len(value)};".encode())
        for key, item in value.items():
            state.update(f"{key!r}:".encode())
            _feed(state, item)
    elif isinstance(value, list | tuple):
        state.update(f"{type(value).__name__} {len(value)};".encode())
        for item in value:
            _feed(state, item)
    else:
        state.update(f"{type(value).__name__} {value!r};".encode())
