"""Where a dataset's inputs live while the model trains: on the training device, or read batch by batch."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mtlcli.cores import usable_cores
from mtlcli.data.dataset import LazyInputs
from mtlcli.errors import MtlError

log = logging.getLogger("mtl")

Loading = Literal["auto", "resident", "stream"]
Route = Literal["resident", "stream"]
LISTED = 10  # examples that can't be read, of which the messages are given
READ_WHOLE = 512 * 2**20  # bytes of image files that `auto` reads into memory once, rather than in every epoch


class Placement:
    """Decides the route of each dataset's inputs, and keeps what has been moved, for all the splits that share it.

    loading: `auto` makes resident what is in memory already and fits in a quarter of the accelerator's free memory
        (of inputs read lazily, what takes up to 512 MiB); `resident` and `stream` decide for all.
    workers: processes that read a streamed dataset; `auto`: one less than the usable cores, at most 4.
    """

    def __init__(
        self, device: torch.device, loading: Loading = "auto", workers: int | Literal["auto"] = "auto"
    ) -> None:
        self.device, self.loading = device, loading
        self.workers = min(4, usable_cores() - 1) if workers == "auto" else workers
        self._kept: dict[int, tuple[Tensor | LazyInputs, Tensor | None]] = {}

    def resident(self, inputs: Tensor | LazyInputs) -> Tensor | None:
        """The inputs [N, *input_shape] on the training device, moved there once; None: they are to be streamed."""
        if id(inputs) not in self._kept:  # the inputs are kept too, so that their id stays theirs
            self._kept[id(inputs)] = (inputs, self._placed(inputs))
        return self._kept[id(inputs)][1]

    def _placed(self, inputs: Tensor | LazyInputs) -> Tensor | None:
        if self.loading == "stream":
            return None
        example = inputs[0]
        size = len(inputs) * example.nbytes
        if self.loading == "auto" and size > self._room(inputs):
            return None
        if not isinstance(inputs, Tensor):
            log.info("reading %d files into memory (%d MiB)", len(inputs), size // 2**20)
            with ThreadPoolExecutor(usable_cores()) as pool:  # decoding releases the interpreter lock
                whole = torch.empty((len(inputs), *example.shape), dtype=example.dtype)
                faults = []
                for row, read in enumerate(pool.map(partial(_read, inputs), range(len(inputs)))):
                    if isinstance(read, MtlError):
                        faults.append(str(read))
                    else:
                        whole[row] = read
            if faults:
                more = [f"… and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
                raise MtlError("\n".join([*faults[:LISTED], *more]))
            inputs = whole
        return inputs.to(self.device)

    def _room(self, inputs: Tensor | LazyInputs) -> float:
        lazy = float("inf") if isinstance(inputs, Tensor) else float(READ_WHOLE)
        if self.device.type == "cpu":
            return lazy
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 8 * 2**30
        return min(lazy, free / 4)


def _read(inputs: LazyInputs, row: int) -> Tensor | MtlError:
    try:
        return inputs[row]
    except MtlError as error:
        return error
