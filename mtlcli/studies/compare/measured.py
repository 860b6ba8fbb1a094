"""Measurements of a trained run that a comparison needs in addition to the run's summary."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from torch import Tensor

from mtlcli.studies.compare.resampling import OutputCollector, resample_metrics
from mtlcli.training import evaluate
from mtlcli.training.assembly.model_size import size
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.device import peak_memory
from mtlcli.training.failures import DivergedError
from mtlcli.training.run import Run
from mtlcli.training.run_folder import RunFolder
from mtlcli.training.state import TrainerState
from mtlcli.training.step import Step

MEASURED = "measured.json"
MEMORY_STEPS = 2  # the state of the optimizer exists from the second step on


def measure(state: TrainerState, folder: RunFolder) -> None:
    """Write `measured.json` into the folder of a trained run.

    It contains `train` (task → metric → value on the training split, or on as many of its examples as an epoch has,
    without augmentation), `flops` (floating-point operations to predict all tasks for one example of every dataset; a
    multiplication and an addition are two), `checkpoint_bytes` (of best.pt, including the state of the optimizer),
    `memory_bytes` (see `measure_step_memory`) and `resampled` (the split, and the values of `resample_metrics` on it).

    Args:
        state: the state of the run after training; its model is that of the best epoch, and is changed.
        folder: the run folder.
    """
    document = measure_model(state.run, folder.best)
    document["memory_bytes"] = measure_step_memory(state)  # last, since it changes the model
    folder.write_json(MEASURED, document)


def measure_model(run: Run, checkpoint: Path) -> dict[str, Any]:
    """Return the content of `measured.json` that the model determines, all but `memory_bytes`.

    Args:
        run: the run, with the model to measure.
        checkpoint: its checkpoint.

    Returns:
        `train`, `flops`, `checkpoint_bytes` and `resampled`; see `measure`.
    """
    split = "test" if "test" in run.splits() else run.experiment.evaluation.split
    outputs = OutputCollector(run.kinds)
    evaluate.measure(run, split, receive=outputs.receive, in_order=True)
    return {
        "train": evaluate.measure(run, "train", most=_epoch_sizes(run)).metrics,
        "flops": size(run)["flops"],
        "checkpoint_bytes": checkpoint.stat().st_size,
        "resampled": {"split": split, "values": resample_metrics(run.kinds, outputs)},
    }


def _epoch_sizes(run: Run) -> dict[str, int]:
    """Return alias → number of examples of an epoch, of which more would only make the measurement longer."""
    examples = run.examples("train")
    sampler = run.make_sampler({alias: len(split) for alias, split in examples.items()})
    return dict(zip(examples, sampler.amounts, strict=True))


def measure_step_memory(state: TrainerState) -> float:
    """Measure the peak memory of the tensors in training: parameters, gradients, optimizer state, activations, batch.

    The memory of the libraries and the data is excluded, so that small models can be compared too. On a GPU, it is the
    peak of the allocator over the whole run. On a CPU, it is the size of the model's tensors plus the allocations of
    two training steps with a new optimizer, which torch's profiler counts. These steps change the model.

    Args:
        state: the state of the run.

    Returns:
        Bytes; NaN on other devices.
    """
    run = state.run
    if run.device.type == "cuda":
        return float(peak_memory(run.device))
    if run.device.type != "cpu":
        return float("nan")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's messages on stderr
    from torch.profiler import ProfilerActivity, profile

    accumulate = run.experiment.training.accumulate
    run.model.train()
    for parameter in run.model.parameters():
        parameter.grad = None
    allocated = _count_bytes(run.model.state_dict(), run.weighting.state_dict(), run.regularization.state_dict())
    batches = chain.from_iterable(state.loader.epoch(epoch) for epoch in range(MEMORY_STEPS * accumulate))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        step = Step(run, make_optimizer(run))
        for _ in range(MEMORY_STEPS):
            with suppress(DivergedError):  # without the warm-up of the schedule, a step may be too large
                step(list(islice(batches, accumulate)))
    return float(allocated + _peak_allocation(profiler))


def _peak_allocation(profiler: Any) -> int:
    """Largest sum of the allocations that exist at the same time, in bytes."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = largest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        largest = max(largest, allocated)
    return largest


def _count_bytes(*states: Any) -> int:
    """Bytes of the distinct storages in nested dicts and lists of tensors."""
    storages: dict[int, int] = {}
    stack: list[Any] = list(states)
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list | tuple):
            stack += value
    return sum(storages.values())
