"""One file that holds everything a run is: read back without running code, and checked to the last bit."""

from __future__ import annotations

import hashlib
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.errors import ConfigError, MtlError
from mtlcli.training.files import atomic

FORMAT = 1
PARTS = ("config", "specs", "model")  # what every reader needs


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write `payload` (plain tensors, numbers, strings, lists, dicts) atomically, with its version and SHA-256.

    MtlError where it can't be written, such as to a full disk; a file that was there before stays.
    """
    document = {"format": "mtl", "version": FORMAT, "sha256": digest(payload), **payload}
    with atomic(path) as temporary:
        try:
            torch.save(document, temporary)
        except RuntimeError as error:  # what torch's writer makes of an OSError
            raise MtlError(f"{path}: can't be written: {error}") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, with `weights_only=True`: no code in the file can run.

    Raises ConfigError for a file that is missing, damaged, none of ours, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such checkpoint file")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's remarks on files that are none of ours
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises of every kind, and its reasons would only mislead
        raise ConfigError(f"{path}: damaged, or not a checkpoint of mtl") from error
    if not isinstance(document, dict) or document.get("format") != "mtl":
        raise ConfigError(f"{path}: not a checkpoint of mtl")
    version = document.get("version")
    if not isinstance(version, int) or version > FORMAT:
        raise ConfigError(
            f"{path}: checkpoint format {version}, and this mtl reads up to {FORMAT}: install a newer mtl"
        )
    payload = {key: value for key, value in document.items() if key not in ("format", "version", "sha256")}
    if digest(payload) != document.get("sha256"):
        raise ConfigError(f"{path}: damaged: its content does not match its SHA-256; use another checkpoint")
    if lacking := [key for key in PARTS if key not in payload]:
        raise ConfigError(f"{path}: not a whole checkpoint of mtl: it has no {', '.join(lacking)}")
    return payload


def digest(value: Any) -> str:
    """SHA-256 of a payload: types, structure and every bit of every tensor."""
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()


def _feed(state: hashlib._Hash, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        state.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        state.update(value.flatten().view(torch.uint8).numpy())
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


def plain(value: Any) -> Any:
    """A state dict as a checkpoint takes it: detached tensors that share nothing, dicts, lists and numbers."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def rng_state() -> dict[str, Any]:
    """The state of every global random generator."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    name, keys, position, has_gauss, cached = state["numpy"]
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate((version, tuple(words), gauss))
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
