"""Placement of a dataset's inputs: resident on the training device, or read batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtlcli.cores import usable_cores
from mtlcli.data.augmentation import Augmentation
from mtlcli.data.base import LazyInputs
from mtlcli.data.examples import describe_read_error
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.errors import MtlError

log = logging.getLogger("mtl")

Loading = Literal["auto", "resident", "stream"]
Route = Literal["resident", "stream"]
MAX_ERRORS = 10  # messages about examples that can't be read
READ_WHOLE = 512 * 2**20  # bytes of image files up to which `auto` reads them once rather than in every epoch


class Placement:
    """Decides the route of each dataset's inputs, and caches moved inputs for all splits that share them.

    Args:
        device: training device.
        loading: `auto` makes inputs resident if they are in memory and fit in a quarter of the accelerator's free
            memory (or, if they are read lazily, take up to 512 MiB); `resident` and `stream` apply to all.
        workers: number of processes that read a streamed dataset; `auto` for one less than the usable cores, at most 4.
    """

    def __init__(
        self, device: torch.device, loading: Loading = "auto", workers: int | Literal["auto"] = "auto"
    ) -> None:
        self.device, self.loading, self._workers = device, loading, workers
        self._placements: dict[int, tuple[Tensor | LazyInputs, Tensor | TokenRows | None]] = {}
        self._hosted: dict[int, tuple[LazyInputs, Tensor]] = {}

    @property
    def workers(self) -> int:
        """Number of processes that read a streamed dataset."""
        return min(4, usable_cores() - 1) if self._workers == "auto" else self._workers

    def resident(self, inputs: Tensor | LazyInputs) -> Tensor | TokenRows | None:
        """Move inputs to the training device, once.

        Args:
            inputs: [N, *input_shape], in memory or lazy.

        Returns:
            The inputs on the training device, or None if they are to be streamed.
        """
        if id(inputs) not in self._placements:  # keep the inputs too, so that their id is not reused
            self._placements[id(inputs)] = (inputs, self._place(inputs))
        return self._placements[id(inputs)][1]

    def in_memory(self, inputs: Tensor | LazyInputs) -> Tensor | LazyInputs:
        """Read lazy inputs that are small enough into the host's memory, once, to augment them there.

        Args:
            inputs: [N, *input_shape], in memory or lazy.

        Returns:
            The inputs on the CPU; lazy if they take more than 512 MiB or are to be streamed.
        """
        if isinstance(inputs, Tensor) or not self._fits(inputs):
            return inputs
        if self.device.type == "cpu":
            resident = self.resident(inputs)
            assert isinstance(resident, Tensor)
            return resident
        if id(inputs) not in self._hosted:
            self._hosted[id(inputs)] = (inputs, _read_all(inputs))
        return self._hosted[id(inputs)][1]

    def check(self, inputs: Tensor | LazyInputs) -> None:
        """Read lazy inputs that will be resident, without keeping them.

        Raises an MtlError that lists the inputs that can't be read.

        Args:
            inputs: [N, *input_shape], in memory or lazy.
        """
        if not isinstance(inputs, Tensor | TokenRows) and id(inputs) not in self._placements and self._fits(inputs):
            _read_all(inputs)

    def _place(self, inputs: Tensor | LazyInputs) -> Tensor | TokenRows | None:
        if not self._fits(inputs):
            return None
        return (inputs if isinstance(inputs, Tensor | TokenRows) else _read_all(inputs)).to(self.device)

    def _fits(self, inputs: Tensor | LazyInputs) -> bool:
        """Return True if the inputs are to be resident."""
        if self.loading == "auto":
            size = inputs.nbytes if isinstance(inputs, TokenRows) else len(inputs) * inputs[0].nbytes
            return size <= self._get_memory_limit(inputs)
        return self.loading == "resident"

    def _get_memory_limit(self, inputs: Tensor | LazyInputs) -> float:
        lazy = float("inf") if isinstance(inputs, Tensor | TokenRows) else float(READ_WHOLE)
        if self.device.type == "cpu":
            return lazy
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 8 * 2**30
        return min(lazy, free / 4)


def _read_all(inputs: LazyInputs) -> Tensor:
    """Read all inputs into one tensor [N, *input_shape]. MtlError lists all that can't be read."""
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
        more = [f"… and {len(faults) - MAX_ERRORS} more"] if len(faults) > MAX_ERRORS else []
        raise MtlError("\n".join([*faults[:MAX_ERRORS], *more]))
    return whole


def _read(inputs: LazyInputs, row: int) -> Tensor | MtlError:
    try:
        return inputs[row]
    except MtlError as error:
        return error


# Request for one batch: rows of the inputs, and for augmentation the number of the pass of each. These are lists,
# because each tensor sent between processes would take shared memory and a file descriptor.
Request = tuple[list[int], list[int]]


class _Batches(Dataset[Tensor | MtlError]):
    """Map from a request to a batch [B, *input_shape], which runs in the workers.

    Errors are returned as MtlError rather than raised, because the DataLoader would wrap their messages in a traceback.
    """

    def __init__(self, inputs: Tensor | LazyInputs, augmentation: Augmentation | None) -> None:
        self.inputs, self.augmentation = inputs, augmentation

    def __getitem__(self, request: Request) -> Tensor | MtlError:
        try:
            return self._batch(*request)
        except MtlError as error:
            return error
        except Exception as error:  # of the dataset's own code
            return MtlError(describe_read_error(error))

    def _batch(self, rows: list[int], passes: list[int]) -> Tensor:
        if self.augmentation is None and isinstance(self.inputs, Tensor):
            return self.inputs[rows]
        if isinstance(self.inputs, TokenRows):
            return self.inputs.batch(np.array(rows))
        examples: Sequence[Tensor] = [self.inputs[row] for row in rows]
        if self.augmentation is not None:
            examples = self.augmentation(examples, passes, rows)
        return torch.stack(list(examples))


class _Requests(Sampler[Request]):
    """Requests of the current epoch, replaced between epochs so that the workers persist."""

    requests: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)


class Stream:
    """Batches of one dataset, read ahead in the order of the requests.

    Only one epoch is active: starting another ends the previous one. Torch's random state is neither read nor changed.

    Args:
        inputs: [N, *input_shape], in memory or lazy.
        device: device of the batches.
        workers: number of processes that read; 0 for this process.
        augmentation: transforms of each example, or None.
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
            generator=torch.Generator().manual_seed(0),  # otherwise it draws from the global generator
        )

    def batches(self, requests: Iterable[Request]) -> Callable[[], Tensor]:
        """Start reading requests, and return a function that returns the next batch each time it is called.

        Args:
            requests: one per batch.

        Returns:
            Function without arguments that returns the next batch [B, *input_shape] on the device.
        """
        self.requests.requests = requests
        loaded = iter(self.loader)

        def next_batch() -> Tensor:
            batch = next(loaded)
            if isinstance(batch, MtlError):
                try:
                    raise batch
                finally:
                    del batch  # avoids a cycle of the error and this frame, see `dataset_loader._iterate_requests`
            on_device: Tensor = batch.to(self.device, non_blocking=True)
            return on_device

        return next_batch
