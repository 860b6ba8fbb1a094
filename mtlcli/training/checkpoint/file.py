"""Checkpoint files: written atomically with a checksum, read without executing code."""

from __future__ import annotations

import io
import os
import random
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import atomic_write, given_path
from mtlcli.training.checkpoint.integrity import SEAL, check_archive, check_seal, seal
from mtlcli.training.device import physical_memory

FORMAT = 2  # 1: SHA-256 of the content instead of the bytes of the file
PARTS = ("config", "specs", "model")  # dicts that are always present


def save_checkpoint(path: Path, payload: dict[str, Any], before: Callable[[], None] | None = None) -> None:
    """Write a checkpoint atomically, with its format version and checksum.

    The file is read back before it replaces an existing one.

    Args:
        path: The file.
        payload: Plain tensors, numbers, strings, lists and dicts.
        before: Called when the new file is complete on disk, before it replaces the existing one.

    Raises:
        MtlError: If it can't be written, for example because the disk is full. An existing file is kept.
    """
    buffer = io.BytesIO()
    torch.save({"format": "mtl", "version": FORMAT, **payload}, buffer)
    content = seal(buffer.getbuffer())
    with atomic_write(path, before) as temporary:
        temporary.write_bytes(content)
        try:
            load_checkpoint(temporary)
        except ConfigError as error:
            raise MtlError(f"{path}: can't be written: reading it back failed: {error}") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU. Code in the file is never executed.

    Args:
        path: The file.

    Returns:
        The payload: plain data.

    Raises:
        ConfigError: For a file that is missing, damaged, no checkpoint, or of another format version.
    """
    path = given_path(path, "checkpoint")
    with _opened(path) as file, warnings.catch_warnings(action="ignore"):  # of torch, about foreign files
        try:
            # the only place that unpickles a file, after the checks of `_opened`
            document = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
            size = file.seek(0, os.SEEK_END)
        except Exception as error:  # torch raises many types, with misleading messages
            raise ConfigError(f"{path}: damaged, or not a checkpoint of mtl") from error
    try:
        check_plain(document, size)
    except ValueError as error:
        raise ConfigError(f"{path}: not a checkpoint of mtl: {error}") from error
    return _payload(path, document)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a checkpoint file whose checksum and archive structure are valid.

    No content is interpreted before. Because anyone can compute a checksum, the structure of the archive is checked as
    well (`check_archive`).

    Args:
        path: The file.

    Yields:
        The file, at its start.

    Raises:
        ConfigError: If the file is missing, no regular file, larger than the memory of this machine, damaged, or not a
            checkpoint.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # do not wait for the writer of a pipe
        status = os.fstat(handle)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such checkpoint file") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise ConfigError(f"{path}: not a regular file, so not a checkpoint")
    with os.fdopen(handle, "rb") as file:
        if status.st_size > (memory := physical_memory()):
            sizes = f"{status.st_size / 2**30:,.0f} GiB, but this machine has {memory / 2**30:,.1f} GiB of memory"
            raise ConfigError(f"{path}: too large to open: {sizes}")
        try:
            check_seal(path, file, status.st_size)
            check_archive(file, status.st_size, comment=SEAL)
        except OSError as error:
            raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not a checkpoint of mtl: {error}") from error
        file.seek(0)
        yield file


def _payload(path: Path, document: Any) -> dict[str, Any]:
    """Return the content without its format; ConfigError for another format version or a missing entry."""
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or document.get("format") != "mtl":
        raise ConfigError(f"{path}: not a checkpoint of mtl")
    if version != FORMAT:
        advice = "the version that wrote it" if version < FORMAT else "a newer version"
        raise ConfigError(
            f"{path}: checkpoint format {version}, but this version of mtl reads format {FORMAT}: use {advice}"
        )
    payload = {key: value for key, value in document.items() if key not in ("format", "version")}
    if lacking := [key for key in PARTS if not isinstance(payload.get(key), dict)]:
        raise ConfigError(f"{path}: not a complete checkpoint of mtl: missing {', '.join(lacking)}")
    if wrong := [name for name, value in payload["model"].items() if not isinstance(value, Tensor)]:
        raise ConfigError(f"{path}: not a checkpoint of mtl: model.{wrong[0]} is not a tensor")
    return payload


def plain(value: Any) -> Any:
    """Copy a state dict as plain data: detached CPU tensors without shared memory, dicts, lists and numbers."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def rng_state() -> dict[str, Any]:
    """Return the state of all global random generators."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the state of all global random generators."""
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
    """Check that a document is plain data of limited size.

    Allowed are dicts with string or integer keys, lists, tuples, strings, numbers, booleans, None, and dense CPU
    tensors that require no gradient. An object that is referenced several times counts several times.

    Args:
        document: The content of a checkpoint.
        size: Bytes of the file, which the tensors may not exceed.

    Raises:
        ValueError: With the location, for anything else, for more than MOST_VALUES values, and for nesting deeper than
            MOST_DEPTH.
    """
    _Walk(size).walk(document, ())


class _Walk:
    def __init__(self, size: int) -> None:
        self.bytes_left = size
        self.values = 0

    def walk(self, value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, Tensor):
            self._tensor(value, path)
            return
        if type(value) not in (dict, list, tuple):
            raise ValueError(f"{_place(path)} is a {type(value).__name__}, not plain data")
        if len(path) >= MOST_DEPTH:
            raise ValueError(f"{_place(path[:4])} is nested deeper than {MOST_DEPTH} levels")
        self.values += len(value)
        if self.values > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        for key, item in value.items() if type(value) is dict else enumerate(value):
            if type(key) not in (str, int):
                raise ValueError(f"{_place(path)} has a key that is neither a string nor an integer")
            if type(item) not in SCALARS:
                self.walk(item, (*path, key))

    def _tensor(self, value: Tensor, path: tuple[Any, ...]) -> None:
        plain = type(value) is Tensor and value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.requires_grad or value._backward_hooks:
            raise ValueError(f"{_place(path)} is not a dense CPU tensor without gradient")
        claimed = value.numel() * value.element_size()
        self.bytes_left -= claimed
        if claimed > value.untyped_storage().nbytes() or self.bytes_left < 0:
            raise ValueError(f"{_place(path)} is a tensor larger than the file")


def _place(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "it"
