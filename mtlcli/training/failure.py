"""Errors that torch or a plugin raises in a run, as one-line messages."""

from __future__ import annotations

from pathlib import Path

import torch

from mtlcli.blame import plugin_spot, reason
from mtlcli.errors import MtlError
from mtlcli.training.batch_norm import BATCH_NORM_REFUSAL


def explained(error: BaseException, batch_size: int, log: Path | None = None) -> BaseException:
    """The error itself, or an MtlError of one line for what torch or a plugin raises.

    batch_size: the run's. log: the run's log file, which has the traceback.
    """
    first = str(error).partition("\n")[0] or type(error).__name__
    where = "log.txt" if log is None else log
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in first:
        advice = "lower it (and raise training.accumulate), or set training.precision: bf16"
        return MtlError(f"out of memory with training.batch_size {batch_size}: {advice}")
    if BATCH_NORM_REFUSAL in first:
        return MtlError(
            f"the run failed: batch norm was given one value per channel, with training.batch_size {batch_size}: raise "
            f"it, or use a trunk without batch norm (traceback: {where})"
        )
    if isinstance(error, MtlError) or not isinstance(error, Exception | SystemExit):
        return error
    if (spot := plugin_spot(error)) is not None:
        text, kind = reason(error), type(error).__name__
        text = text if text.startswith((kind, "calls ")) else f"{kind}: {text}"
        return MtlError(f"the run failed at {spot.file}:{spot.line}, in {spot.function}: {text} (traceback: {where})")
    if isinstance(error, RuntimeError | ValueError | ArithmeticError | AssertionError):
        return MtlError(f"the run failed: {first} ({type(error).__name__}; traceback: {where})")
    return error
