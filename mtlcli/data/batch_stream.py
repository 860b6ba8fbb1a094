"""Batches of one dataset that are read ahead, in workers or in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.base import LazyInputs
from mtlcli.data.examples import describe_read_error
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.errors import MtlError

# Request for one batch: rows of the inputs, and for augmentation the number of the pass of each. These are lists,
# because each tensor sent between processes would take shared memory and a file descriptor.
Request = tuple[list[int], list[int]]


class InputReader(Dataset[Tensor | MtlError]):
    """Map from a request to a batch [B, *input_shape], which runs in the workers.

    Errors are returned as MtlError rather than raised, because the DataLoader would wrap their messages in a traceback.

    Args:
        inputs: [N, *input_shape], in memory or lazy.
        augmentation: transforms of each example, or None.
    """

    def __init__(self, inputs: Tensor | LazyInputs, augmentation: Augmentation | None = None) -> None:
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
        reader: map from a request to a batch, such as `InputReader`; a batch has the method `to` of tensors.
        device: device of the batches.
        workers: number of processes that read; 0 for this process.
    """

    def __init__(self, reader: Dataset[Any], device: torch.device, workers: int) -> None:
        self.device = device
        self.requests = _Requests()
        self.loader: DataLoader[Any] = DataLoader(
            reader,
            sampler=self.requests,
            batch_size=None,  # a request is already a whole batch
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # otherwise it draws from the global generator
        )

    def batches(self, requests: Iterable[Request]) -> Callable[[], Any]:
        """Start reading requests, and return a function that returns the next batch each time it is called.

        Args:
            requests: one per batch.

        Returns:
            Function without arguments that returns the next batch of the reader on the device.
        """
        self.requests.requests = requests
        loaded = iter(self.loader)

        def next_batch() -> Any:
            batch = next(loaded)
            if isinstance(batch, MtlError):
                try:
                    raise batch
                finally:
                    del batch  # avoids a cycle of the error and this frame, see `dataset_loader._iterate_requests`
            return batch.to(self.device, non_blocking=True)

        return next_batch
