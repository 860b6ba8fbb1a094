"""What torch raises in a run, as an error for people."""

from __future__ import annotations

import torch

from mtlcli.errors import MtlError


def explained(error: BaseException, batch_size: int) -> BaseException:
    """The error itself, or an MtlError of one line for what torch raises where a setting doesn't work out.

    batch_size: the run's.
    """
    first = str(error).partition("\n")[0] or type(error).__name__
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in first:
        advice = "lower it (and raise training.accumulate), or set training.precision: bf16"
        return MtlError(f"out of memory with training.batch_size {batch_size}: {advice}")
    if isinstance(error, RuntimeError | ValueError | ArithmeticError | AssertionError):
        return MtlError(f"the run failed: {first} ({type(error).__name__}; log.txt has all of it)")
    return error
