"""Placement of a dataset's inputs: resident on the training device, or read batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from mtlcli.cores import usable_cores
from mtlcli.data.base import LazyInputs
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.errors import MtlError

log = logging.getLogger("mtl")

Loading = Literal["auto", "resident", "stream"]
Route = Literal["resident", "stream"]
FetchBatch = Callable[[int, int], Tensor]  # positions [start, stop) of an epoch → inputs on the device
T = TypeVar("T")
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
        self._groups: dict[tuple[int, ...], tuple[Sequence[Tensor | LazyInputs], bool]] = {}
        self._values: dict[tuple[Any, ...], Any] = {}

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

    def resident_group(self, sources: Sequence[Tensor | LazyInputs]) -> list[Tensor] | None:
        """Move the inputs and the maps of the same examples to the training device, once.

        Args:
            sources: inputs and maps, [N, …] each, in memory or lazy.

        Returns:
            The inputs and maps on the training device, or None if all are to be streamed: they share a route, which
            depends on their size together.
        """
        if not self._fit_together(sources):
            return None
        lazy = [source for source in sources if self._placements.get(id(source), (None, None))[1] is None]
        for source, whole in zip(lazy, _read_together(lazy), strict=True):
            self._placements[id(source)] = (source, whole.to(self.device))
        return [self._placements[id(source)][1] for source in sources]  # type: ignore[misc]  # none is a TokenRows

    def group_in_memory(self, sources: Sequence[Tensor | LazyInputs]) -> Sequence[Tensor | LazyInputs]:
        """Read the inputs and maps of the same examples into the host's memory, once, see `in_memory`.

        Args:
            sources: inputs and maps, [N, …] each, in memory or lazy.

        Returns:
            The inputs and maps on the CPU; lazy if all together take more than 512 MiB or are to be streamed.
        """
        if all(isinstance(source, Tensor) for source in sources) or not self._fit_together(sources):
            return sources
        if self.device.type == "cpu":
            return self.resident_group(sources) or sources
        lazy = [s for s in sources if not isinstance(s, Tensor) and id(s) not in self._hosted]
        self._hosted |= {id(s): (s, whole) for s, whole in zip(lazy, _read_together(lazy), strict=True)}
        return [s if isinstance(s, Tensor) else self._hosted[id(s)][1] for s in sources]

    def check_group(self, sources: Sequence[Tensor | LazyInputs]) -> None:
        """Read lazy inputs and maps of the same examples that will be resident, without keeping them.

        Raises an MtlError that lists the examples that can't be read.

        Args:
            sources: inputs and maps, [N, …] each, in memory or lazy.
        """
        if self._fit_together(sources):
            _read_together([s for s in sources if not isinstance(s, Tensor) and id(s) not in self._placements])

    def remember(self, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """Return a value that is computed once from resident inputs or maps.

        Args:
            key: ids of the inputs and maps, and what else the value depends on.
            compute: computes the value.

        Returns:
            The value.
        """
        if key not in self._values:
            self._values[key] = compute()
        value: T = self._values[key]
        return value

    def _fit_together(self, sources: Sequence[Tensor | LazyInputs]) -> bool:
        """Return True if inputs and maps are to be resident: decided once, since it depends on the free memory."""
        key = tuple(map(id, sources))
        if key not in self._groups:
            self._groups[key] = sources, self._fit(sources)  # keeps them, so that their ids are not reused
        return self._groups[key][1]

    def _fit(self, sources: Sequence[Tensor | LazyInputs]) -> bool:
        if self.loading != "auto":
            return self.loading == "resident"
        size = sum(len(source) * source[0].nbytes for source in sources)
        return size <= min(self._get_memory_limit(source) for source in sources)

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
    whole, faults = _try_to_read(inputs)
    _raise_faults(faults)
    return whole


def _read_together(sources: Sequence[Tensor | LazyInputs]) -> list[Tensor]:
    """Read inputs and maps into tensors. MtlError lists all that can't be read of any of them."""
    read = [(source, []) if isinstance(source, Tensor) else _try_to_read(source) for source in sources]
    _raise_faults([fault for _, faults in read for fault in faults])
    return [whole for whole, _ in read]


def _raise_faults(faults: list[str]) -> None:
    if faults:
        more = [f"… and {len(faults) - MAX_ERRORS} more"] if len(faults) > MAX_ERRORS else []
        raise MtlError("\n".join([*faults[:MAX_ERRORS], *more]))


def _try_to_read(inputs: LazyInputs) -> tuple[Tensor, list[str]]:
    """Read all inputs into one tensor [N, *input_shape], and return the messages about those that can't be read."""
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
    return whole, faults


def _read(inputs: LazyInputs, row: int) -> Tensor | MtlError:
    try:
        return inputs[row]
    except MtlError as error:
        return error


def make_gather(inputs: Tensor, rows: Tensor) -> FetchBatch:
    """Return a function that gathers inputs[rows[start:stop]] in one copy.

    The copy is of 8-byte words if an input consists of whole words: on the CPU, gathering a batch of images is then
    four times as fast, since the copy is no longer split among threads.

    Args:
        inputs: resident inputs [N, *input_shape].
        rows: int64 [amount], on the same device.

    Returns:
        Function of (start, stop).
    """
    words = None
    if inputs.is_contiguous() and inputs[0].nbytes % 8 == 0 and inputs.data_ptr() % 8 == 0 and inputs.ndim > 1:
        words = inputs.flatten(1).view(torch.int64)
    if words is None:
        return lambda start, stop: inputs.index_select(0, rows[start:stop])
    dtype, shape = inputs.dtype, (-1, *inputs.shape[1:])
    return lambda start, stop: words.index_select(0, rows[start:stop]).view(dtype).view(shape)
