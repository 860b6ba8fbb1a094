"""Reasons for which a run ends early: values that are not finite, errors of its components, and signals."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import Tensor

from mtlcli.data.loader import Batch
from mtlcli.error_origin import error_reason, plugin_location
from mtlcli.errors import InterruptedRunError, MtlError
from mtlcli.training.assembly.batch_norm_checks import BATCH_NORM_REFUSAL
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
    """Return a description of a column of the run, such as `task 'digit'`."""
    kind = "regularizer" if name.startswith(PREFIX) else "task"
    return f"{kind} {name.removeprefix(PREFIX)!r}"


def check_losses(step: int, losses: Mapping[str, float]) -> None:
    """Check that every loss is finite.

    Args:
        step: number of the step, for the message.
        losses: column of the run → loss.

    Raises:
        DivergedError: if a loss is NaN or infinite.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            raise DivergedError(f"the loss of {column(name)} is {value} at step {step}. {CAUSES}")


def check_weights(step: int, weights: Mapping[str, float], fault: str) -> None:
    """Check that the weight of every task and regularizer is finite.

    Args:
        step: number of the step, for the message.
        weights: column of the run → weight; the losses are finite.
        fault: explanation of the error, see `weighting_fault`.

    Raises:
        DivergedError: if a weight is NaN or infinite.
    """
    for name, value in weights.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"the weight of {column(name)} is {value} at step {step}, though the losses are finite: {fault}"
            )


def weighting_fault(run: Run) -> str:
    """Return the explanation and the remedy for a weight that the run's weighting computed and that isn't finite."""
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
    """Return the largest magnitude in all tensors, 0-d; NaN if one of them holds NaN."""
    if tensors[0].device.type == "cpu":  # where the norm takes ten times as long
        return torch.stack([bound for tensor in tensors for bound in tensor.aminmax()]).abs().max()
    return torch.nn.utils.get_total_norm(tensors, norm_type=math.inf)


def check_gradient(step: int, size: float, culprits: Sequence[str], fault: str | None = None) -> None:
    """Check that the gradient is finite.

    Args:
        step: number of the step, for the message.
        size: largest magnitude in the gradient, see `largest`.
        culprits: columns of the run whose own gradient isn't finite.
        fault: explanation by the weighting, see `weighting_fault`, if every task's own gradient is finite.

    Raises:
        DivergedError: if the gradient holds NaN or infinity.
    """
    if math.isfinite(size):
        return
    if fault is not None:
        raise DivergedError(f"the gradient is {size} at step {step}, though each task's own is finite: {fault}")
    whose = f" of {' and '.join(map(column, culprits))}" if culprits else ""
    raise DivergedError(f"the gradient{whose} is {size} at step {step}, though the losses are finite. {CAUSES}")


def find_culprits(run: Run, batches: Sequence[Batch], parameters: Sequence[Tensor]) -> list[str]:
    """Find the tasks whose loss alone has a gradient that isn't finite.

    Args:
        run: the run, which can't continue: its gradients are overwritten.
        batches: the batches of the step.
        parameters: the parameters of the optimizer.

    Returns:
        Names of the tasks.
    """
    diverged = []
    for task in run.kinds:
        for parameter in parameters:
            parameter.grad = None
        for batch in batches:
            if batch.counts.get(task, 0):
                with run.autocast():
                    prediction = run.model(batch.inputs, [task])[task]
                    loss = run.loss(task, prediction, batch)
                loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients and not bool(largest(gradients).isfinite()):
            diverged.append(task)
    return diverged


def check_model(step: int, state: Mapping[str, Tensor]) -> None:
    """Check that every weight and statistic of a model is finite.

    Args:
        step: number of the step, for the message.
        state: the model's state dict.

    Raises:
        DivergedError: if one holds NaN or infinity; the message names the first.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise DivergedError(f"{name} holds values that aren't finite after step {step}. {CAUSES}")


def explain_error(error: BaseException, batch_size: int, log: Path | None = None) -> BaseException:
    """Return an MtlError of one line for an error of torch, a plugin or a callback, and any other error as it is.

    Args:
        error: the error.
        batch_size: batch size of the run, for the message.
        log: log file of the run, which has the traceback.

    Returns:
        The error to raise.
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
            f"the run failed: batch norm got one value per channel, with training.batch_size {batch_size}: raise "
            f"it, or use a trunk without batch norm (traceback: {where})"
        )
    if isinstance(error, MtlError) or not isinstance(error, Exception | SystemExit):
        return error
    if (spot := plugin_location(error)) is not None:
        text, kind = error_reason(error), type(error).__name__
        text = text if text.startswith((kind, "calls ")) else f"{kind}: {text}"
        return MtlError(f"the run failed at {spot.file}:{spot.line}, in {spot.function}: {text} (traceback: {where})")
    if isinstance(error, RuntimeError | ValueError | ArithmeticError | AssertionError):
        return MtlError(f"the run failed: {first} ({type(error).__name__}; traceback: {where})")
    return error


class StopRequest:
    """Context in which the first SIGINT or SIGTERM is a request to stop, and the second one acts as usual.

    Args:
        saved: path of the checkpoint, for the message.

    Attributes:
        requested: the signal that was received; None if there was none.
    """

    def __init__(self, saved: str = "") -> None:
        self.saved = saved
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python takes handlers from no other thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def poll(self) -> None:
        """Check for a signal. A run calls this after every step and before every batch of an evaluation.

        Raises:
            InterruptedRunError: if a signal was received.
        """
        if self.requested is not None:
            name = "interrupted (Ctrl-C)" if self.requested == signal.SIGINT else "terminated (SIGTERM)"
            message = f"{name}; saved {self.saved}. Resume with: --resume auto"
            raise InterruptedRunError(message, 128 + self.requested)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
