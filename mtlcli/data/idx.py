"""Reading IDX files, the format of MNIST.

torchvision's own reader holds the bytes, a NumPy array and a tensor at once, two to three times the data, and costs
1.2 s and 165 MiB to import; this one reads into the tensor.
"""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from torch import Tensor

from mtlcli.data.compressed import most, opened, reason
from mtlcli.errors import MtlError

UINT8 = 0x08


def read_idx(path: Path, example: tuple[int, ...], remedy: str) -> Tensor:
    """The uint8 tensor [N, *example] in an IDX file, plain or .gz.

    MtlError, ending in `remedy`, where the file is no IDX file of such examples, or shorter or longer than it says.
    """
    start = bytes([0, 0, UINT8, len(example) + 1]) + struct.pack(f">{len(example)}I", *example)
    try:
        with opened(path) as file:
            magic, count, shape = file.read(4), file.read(4), file.read(4 * len(example))
            if magic + shape != start or len(count) < 4:
                raise ValueError(
                    f"is no IDX file of uint8 examples of shape {list(example)}: it begins with "
                    f"0x{(magic + count + shape).hex()}, not with 0x{start[:4].hex()}…{start[4:].hex()}"
                )
            (examples,) = struct.unpack(">I", count)
            expected = examples * int(torch.Size(example).numel())
            # Before there is memory for it, so that a damaged header can't ask for terabytes.
            if expected > (room := most(path) - len(magic + count + shape)):
                raise ValueError(f"announces {examples} examples, {expected} bytes, and has no more than {room}")
            data = torch.empty(expected, dtype=torch.uint8)
            view = memoryview(data.numpy())  # type: ignore[arg-type]
            while view and (got := file.readinto(view[: 1 << 20])):  # type: ignore[attr-defined]
                view = view[got:]
            if view or file.read(1):
                had = f"{expected - len(view)} bytes" if view else "more"
                raise ValueError(f"announces {examples} examples, {expected} bytes, and has {had}")
    except (OSError, ValueError) as error:
        raise MtlError(f"{path}: {reason(error)}. {remedy}") from error
    return data.view(examples, *example)
