"""Files of pretrained weights: tensors by name, read without running code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli.files import quote_path
from mtlcli.models.warm_start import find_mismatches

WRAPPERS = ("state_dict", "model")  # keys under which some programs save the weights
COUNTER = "num_batches_tracked"  # of batch norm; not in old files, and of no influence on its output


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights.

    Args:
        path: a .safetensors file, or a file of `torch.save`, of which only tensors and plain data are read.

    Returns:
        Name → tensor, on the CPU.

    Raises:
        ValueError: if the file can't be read, would run code, or holds something else.
    """
    try:
        content = _read(path)
    except ImportError as error:
        raise ValueError(f"{quote_path(path)}: reading it needs safetensors: pip install 'mtlcli[vision]'") from error
    except Exception as error:  # of pickle, zip files and torch, for damaged files and for those with code
        raise ValueError(f"{quote_path(path)} can't be read as weights: {_reason(error)}") from error
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(map(_is_entry, content.items())):
        raise ValueError(f"{quote_path(path)} holds no weights; expected a dictionary of names and tensors")
    return dict(content)


def _reason(error: Exception) -> str:
    """Describe an error of torch or safetensors in a line, without torch's advice to read the file unsafely."""
    lines = str(error).strip().splitlines()
    if code := re.search(r"nsupported (?:\w+: )?GLOBAL (\S+)", str(error)):
        return f"it contains {code[1]!r}, which is neither a tensor nor plain data. Nothing in it was run"
    if not lines or "weights_only" in lines[0]:
        return "it is damaged, or no file of torch.save"
    return lines[0]


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    zipped = zipfile.is_zipfile(path)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, which torch.save doesn't do")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)  # noqa: TID251


def _is_entry(entry: tuple[object, object]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor) and entry[1].layout == torch.strided


def match_in_order(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a network that another program has named, if all tensors agree in order.

    Args:
        own: state dict of the network, without a classifier.
        other: weights with other names, possibly followed by `weight` and `bias` of a classifier.

    Returns:
        `other` with the names of `own` and without the classifier, if both have the same shapes and last parts of the
        names (`weight`, `running_mean`, …) in the same order; otherwise unchanged.
    """

    def outline(state: Mapping[str, Tensor]) -> list[tuple[str, torch.Size]]:
        return [(key.rpartition(".")[2], value.shape) for key, value in state.items()]

    first, further = outline(other)[: len(own)], [name for name, _ in outline(other)[len(own) :]]
    if first != outline(own) or further not in ([], ["weight"], ["weight", "bias"]):
        return dict(other)
    return dict(zip(own, other.values(), strict=False))


def find_differences(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Compare the weights of a file with those of a network.

    Args:
        own: state dict of the network, possibly on `meta`.
        other: the weights. Floating-point types may differ, and the counters of batch norm may be missing.

    Returns:
        A description of each key that is missing or unexpected, or has another shape or type.
    """
    expected = {key: value for key, value in own.items() if key in other or not key.endswith(COUNTER)}
    converted = {
        key: value.to(own[key].dtype) if _both_float(own.get(key), value) else value for key, value in other.items()
    }
    return find_mismatches(expected, converted)


def _both_float(own: Tensor | None, other: Tensor) -> bool:
    return own is not None and own.is_floating_point() and other.is_floating_point() and own.dtype != other.dtype
