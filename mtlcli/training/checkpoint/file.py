"""One file that holds everything a run is: read back without running code, and checked to the last bit."""

from __future__ import annotations

import io
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import atomic, given_path
from mtlcli.training.checkpoint.integrity import opened, seal

FORMAT = 2  # 1: the SHA-256 was of the content, not of the file's bytes
PARTS = ("config", "specs", "model")  # dicts that every reader needs


def save_checkpoint(path: Path, payload: dict[str, Any], before: Callable[[], None] | None = None) -> None:
    """Write `payload` (plain tensors, numbers, strings, lists, dicts) atomically, sealed, with its format's version.

    before: called when the new file is whole and on the disk, before it takes the place of what was there.
    What was written is loaded first, as a reader would. MtlError where it can't be written, such as to a full disk; a
    file that was there before stays.
    """
    buffer = io.BytesIO()
    torch.save({"format": "mtl", "version": FORMAT, **payload}, buffer)
    content = seal(buffer.getbuffer())
    with atomic(path, before) as temporary:
        temporary.write_bytes(content)
        try:
            load_checkpoint(temporary)
        except ConfigError as error:
            raise MtlError(f"{path}: can't be written: what was written can't be read back: {error}") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU: plain data, whole and as it was written. No code in the file can run.

    Raises ConfigError for a file that is missing, damaged, none of ours, or of another format.
    """
    path = given_path(path, "checkpoint")
    with opened(path) as file, warnings.catch_warnings(action="ignore"):  # torch's remarks on files that aren't ours
        try:
            # the one place where a file is unpickled, with all that `opened` has found out before
            document = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
            size = file.seek(0, os.SEEK_END)
        except Exception as error:  # torch's reader raises of every kind, and its reasons would only mislead
            raise ConfigError(f"{path}: damaged, or not a checkpoint of mtl") from error
    try:
        check_plain(document, size)
    except ValueError as error:
        raise ConfigError(f"{path}: not a checkpoint of mtl: {error}") from error
    return _payload(path, document)


def _payload(path: Path, document: Any) -> dict[str, Any]:
    """What the document holds beside its format. ConfigError where it isn't of this one, or lacks a part."""
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or document.get("format") != "mtl":
        raise ConfigError(f"{path}: not a checkpoint of mtl")
    if version != FORMAT:
        advice = "the mtl that wrote it" if version < FORMAT else "a newer mtl"
        raise ConfigError(f"{path}: checkpoint format {version}, and this mtl reads {FORMAT}: use {advice}")
    payload = {key: value for key, value in document.items() if key not in ("format", "version")}
    if lacking := [key for key in PARTS if not isinstance(payload.get(key), dict)]:
        raise ConfigError(f"{path}: not a whole checkpoint of mtl: it has no {', '.join(lacking)}")
    if wrong := [name for name, value in payload["model"].items() if not isinstance(value, Tensor)]:
        raise ConfigError(f"{path}: not a checkpoint of mtl: model.{wrong[0]} is no tensor")
    return payload


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


MOST_DEPTH = 64
MOST_VALUES = 2**22
SCALARS = {str, int, float, bool, type(None)}


def check_plain(document: Any, size: int) -> None:
    """ValueError, with the place, for anything but dicts with strings or integers for keys, lists, tuples, strings,
    numbers, booleans, None, and dense tensors on the CPU that need no gradient.

    What stands in several places counts as often: ValueError too for more than MOST_VALUES values, for deeper nesting
    than MOST_DEPTH, and for tensors of more bytes than `size`, that of the file.
    """
    _Walk(size).walk(document, ())


class _Walk:
    def __init__(self, size: int) -> None:
        self.room = size
        self.values = 0

    def walk(self, value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, Tensor):
            self._tensor(value, path)
            return
        if type(value) not in (dict, list, tuple):
            raise ValueError(f"{_place(path)} is a {type(value).__name__}, and no plain data")
        if len(path) >= MOST_DEPTH:
            raise ValueError(f"{_place(path[:4])} is nested deeper than {MOST_DEPTH} levels")
        self.values += len(value)
        if self.values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES} values")
        for key, item in value.items() if type(value) is dict else enumerate(value):
            if type(key) not in (str, int):
                raise ValueError(f"{_place(path)} has a key that is neither a string nor an integer")
            if type(item) not in SCALARS:
                self.walk(item, (*path, key))

    def _tensor(self, value: Tensor, path: tuple[Any, ...]) -> None:
        plain = type(value) is Tensor and value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.requires_grad or value._backward_hooks:
            raise ValueError(f"{_place(path)} is a tensor of another kind than a checkpoint's")
        claimed = value.numel() * value.element_size()
        self.room -= claimed
        if claimed > value.untyped_storage().nbytes() or self.room < 0:
            raise ValueError(f"{_place(path)} is a tensor of more bytes than the file has")


def _place(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "it"
