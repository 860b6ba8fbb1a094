"""Inputs read batch by batch through torch's DataLoader: what doesn't fit on the device, or is augmented."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.dataset import LazyInputs
from mtlcli.data.reading import unreadable
from mtlcli.errors import MtlError

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
                    del batch  # it would hold this frame, and the frame it: a cycle, see `feed._requests`
            on_device: Tensor = batch.to(self.device, non_blocking=True)
            return on_device

        return following
