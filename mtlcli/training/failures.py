"""Losses, gradients and weights that are NaN or infinite: seen before they reach the model, and told of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mtlcli.data.loader import Batch
from mtlcli.error_origin import plugin_spot, reason
from mtlcli.errors import MtlError
from mtlcli.training.assembly.batch_norm import BATCH_NORM_REFUSAL
from mtlcli.training.assembly.regularization import PREFIX
from mtlcli.training.run import Run

CAUSES = (
    "Likely causes: the learning rate is too high (lower optimizer.lr or set training.clip_norm), fp16 overflowed (use "
    "bf16 or fp32), or the inputs or targets hold values that aren't finite"
)


class DivergedError(MtlError):
    """A loss, a gradient or a weight is NaN or infinite."""


class CallbackError(MtlError):
    """An exception that a callback raised; the message names the callback and its line."""


def column(name: str) -> str:
    """A column of the run in words: a task, or a regularizer."""
    kind = "regularizer" if name.startswith(PREFIX) else "task"
    return f"{kind} {name.removeprefix(PREFIX)!r}"


def check_losses(step: int, losses: Mapping[str, float]) -> None:
    """DivergedError where a loss isn't finite. losses: by column of the run."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise DivergedError(f"the loss of {column(name)} is {value} at step {step}. {CAUSES}")


def check_weights(step: int, weights: Mapping[str, float], fault: str) -> None:
    """DivergedError where the weight that a task was given isn't finite, though its loss and gradient are.

    weights: by column of the run. fault: `weighting_fault`.
    """
    for name, value in weights.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"the weight of {column(name)} is {value} at step {step}, though the losses are finite: {fault}"
            )


def weighting_fault(run: Run) -> str:
    """State that the run's weighting produced a number that isn't finite, and what to do."""
    entry = run.experiment.weighting
    name = " ".join([entry.name, *([entry.options["aggregator"]] if "aggregator" in entry.options else [])])
    if any(True for _ in run.weighting.parameters()):
        return (
            f"weighting {name} learns it, as a parameter of the network's optimizer. Lower optimizer.lr, or choose a "
            f"weighting that learns nothing, such as weighting=uniform"
        )
    return (
        f"weighting {name} computed it from finite numbers, which neither a lower learning rate nor clipping changes. "
        f"Choose other options of it (`mtl show {entry.name}`) or another weighting, such as weighting=uniform, and "
        f"report this as an error in {name}"
    )


def largest(tensors: Sequence[Tensor]) -> Tensor:
    """The largest magnitude in all of them, 0-d; NaN where one holds NaN."""
    return torch.nn.utils.get_total_norm(tensors, norm_type=math.inf)


def check_gradient(step: int, size: float, culprits: Sequence[str], fault: str | None = None) -> None:
    """DivergedError where the gradient's `largest` isn't finite.

    culprits: columns whose own gradient isn't finite. fault: `weighting_fault`, where it is known that all of them are.
    """
    if math.isfinite(size):
        return
    if fault is not None:
        raise DivergedError(f"the gradient is {size} at step {step}, though each task's own is finite: {fault}")
    whose = f" of {' and '.join(map(column, culprits))}" if culprits else ""
    raise DivergedError(f"the gradient{whose} is {size} at step {step}, though the losses are finite. {CAUSES}")


def culprits(run: Run, batches: Sequence[Batch], parameters: Sequence[Tensor]) -> list[str]:
    """The tasks whose loss alone has a gradient that isn't finite. Changes the gradients; the run is over."""
    found = []
    for task, kind in run.kinds.items():
        for parameter in parameters:
            parameter.grad = None
        for batch in batches:
            if batch.counts.get(task, 0):
                with run.autocast():
                    prediction = run.model(batch.inputs, [task])[task]
                    loss = kind.loss(prediction, batch.targets[task])
                loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients and not bool(largest(gradients).isfinite()):
            found.append(task)
    return found


def check_model(step: int, state: Mapping[str, Tensor]) -> None:
    """DivergedError that names the first of a model's weights and statistics that isn't finite."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise DivergedError(f"{name} holds values that aren't finite after step {step}. {CAUSES}")


def explained(error: BaseException, batch_size: int, log: Path | None = None) -> BaseException:
    """The error itself, or an MtlError of one line for what torch or a plugin raises.

    batch_size: the run's. log: the run's log file, which has the traceback.
    """
    first = str(error).partition("\n")[0] or type(error).__name__
    where = "log.txt" if log is None else log
    if isinstance(error, CallbackError):
        return MtlError(f"{error} (traceback: {where})")
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
