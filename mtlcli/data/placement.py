"""Where a dataset's inputs live while the model trains: on the training device, or read batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtlcli.cores import usable_cores
from mtlcli.data.augmentation import Augmentation
from mtlcli.data.base import LazyInputs
from mtlcli.data.examples import unreadable
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
            self._kept[id(inputs)] = (inputs, self._place(inputs))
        return self._kept[id(inputs)][1]

    def check(self, inputs: Tensor | LazyInputs) -> None:
        """Read inputs that are read one at a time, where they will be resident, without keeping them.

        MtlError with all that can't be read.
        """
        if not isinstance(inputs, Tensor) and id(inputs) not in self._kept and self._fits(inputs):
            _whole(inputs)

    def _place(self, inputs: Tensor | LazyInputs) -> Tensor | None:
        if not self._fits(inputs):
            return None
        return (inputs if isinstance(inputs, Tensor) else _whole(inputs)).to(self.device)

    def _fits(self, inputs: Tensor | LazyInputs) -> bool:
        """Return whether the inputs are to be resident."""
        if self.loading == "auto":
            return len(inputs) * inputs[0].nbytes <= self._room(inputs)
        return self.loading == "resident"

    def _room(self, inputs: Tensor | LazyInputs) -> float:
        lazy = float("inf") if isinstance(inputs, Tensor) else float(READ_WHOLE)
        if self.device.type == "cpu":
            return lazy
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 8 * 2**30
        return min(lazy, free / 4)


def _whole(inputs: LazyInputs) -> Tensor:
    """All inputs [N, *input_shape]. MtlError with all that can't be read."""
    example = inputs[0]
    log.info("reading %d files into memory (%d MiB)", len(inputs), len(inputs) * example.nbytes // 2**20)
    whole = torch.empty((len(inputs), *example.shape), dtype=example.dtype)
    faults = []
    with ThreadPoolExecutor(usable_cores()) as pool:  # decoding releases the interpreter lock
        for row, read in enumerate(pool.map(partial(_read, inputs), range(len(inputs)))):
            if isinstance(read, MtlError):
                faults.append(str(read))
            else:
                whole[row] = read
    if faults:
        more = [f"… and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        raise MtlError("\n".join([*faults[:LISTED], *more]))
    return whole


def _read(inputs: LazyInputs, row: int) -> Tensor | MtlError:
    try:
        return inputs[row]
    except MtlError as error:
        return error


# One batch as the workers get it: rows of the inputs, and for augmentation the number of the pass of each.
# Lists, because tensors would travel between processes as shared memory with a file descriptor each.
Request = tuple[list[int], list[int]]


class _Batches(Dataset[Tensor | MtlError]):
    """What runs in the workers: a request → the batch [B, *input_shape].

    An error is returned as an MtlError instead of raised, since the DataLoader would wrap its message in a traceback.
    """

    def __init__(self, inputs: Tensor | LazyInputs, augmentation: Augmentation | None) -> None:
        self.inputs, self.augmentation = inputs, augmentation

    def __getitem__(self, request: Request) -> Tensor | MtlError:
        try:
            return self._batch(*request)
        except MtlError as error:
            return error
        except Exception as error:  # of the dataset's own code
            return MtlError(unreadable(error))

    def _batch(self, rows: list[int], passes: list[int]) -> Tensor:
        if self.augmentation is None and isinstance(self.inputs, Tensor):
            return self.inputs[rows]
        examples: Sequence[Tensor] = [self.inputs[row] for row in rows]
        if self.augmentation is not None:
            examples = self.augmentation(examples, passes, rows)
        return torch.stack(list(examples))


class _Requests(Sampler[Request]):
    """The requests of the epoch at hand; exchanged between epochs, so that the workers live on."""

    requests: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)


class Stream:
    """A dataset's batches in the order they are asked for, read ahead by `workers` processes (0: by this one).

    One epoch at a time: starting another ends the one before. Neither reads nor changes torch's random state.
    """

    def __init__(
        self, inputs: Tensor | LazyInputs, device: torch.device, workers: int, augmentation: Augmentation | None = None
    ) -> None:
        self.device = device
        self.requests = _Requests()
        self.loader: DataLoader[Tensor | MtlError] = DataLoader(
            _Batches(inputs, augmentation),
            sampler=self.requests,
            batch_size=None,  # a request is already a whole batch
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # else it draws from the global one
        )

    def batches(self, requests: Iterable[Request]) -> Callable[[], Tensor]:
        """A function that gives the next batch, on the device, each time it is called."""
        self.requests.requests = requests
        loaded = iter(self.loader)

        def following() -> Tensor:
            batch = next(loaded)
            if isinstance(batch, MtlError):
                try:
                    raise batch
                finally:
                    del batch  # it would hold this frame, and the frame it: a cycle, see `feed._iterate_requests`
            on_device: Tensor = batch.to(self.device, non_blocking=True)
            return on_device

        return following
