"""Measurements of a trained run that a comparison needs and a run's summary lacks, made in the run's process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.specs import has_label
from mtlcli.tasks.base import TaskKind
from mtlcli.training import evaluate
from mtlcli.training.assembly.model_size import size
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.device import peak_memory
from mtlcli.training.failures import DivergedError
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer

MEASURED = "measured.json"


def measure(trainer: Trainer) -> None:
    """Write `measured.json` into the run folder of a trained run, whose model is that of its best epoch.

    `train`: task → metric → value on the training split, without augmentation. `flops`: floating-point operations to
    predict all tasks for one example of every dataset, a multiplication and an addition being two.
    `checkpoint_bytes`: of best.pt, which holds the optimizer's state too. `memory_bytes`: see `step_memory`.
    `resampled`: the split, and task → metric → values on bootstrap samples of its examples, see `resampling`.
    """
    run, folder = trainer.run, trainer.folder
    split = "test" if "test" in run.splits() else run.experiment.evaluation.split
    outputs = Outputs()
    evaluate.measure(run, split, receive=outputs.receive)
    document = {
        "train": evaluate.evaluate(run, "train"),
        "flops": size(run.model, run.specs)["flops"],
        "checkpoint_bytes": Path(folder.best).stat().st_size,
        "resampled": {"split": split, "values": replicates(run.kinds, outputs)},
        "memory_bytes": step_memory(trainer),  # last: it changes the model
    }
    folder.write_json(MEASURED, document)


FEWEST, MOST = 50, 200  # resamples
BUDGET = 4_000_000  # labels in all resamples together; large sets get fewer resamples
LARGEST = 2**26  # numbers that are kept of one task: 256 MiB of predictions

Replicates = dict[str, dict[str, list[float]]]  # task → metric → its value on each resample


class Outputs:
    """Predictions and targets of all labelled examples of a split, collected batch by batch.

    A task whose predictions exceed `LARGEST` numbers is given up, so that memory stays bounded.
    """

    def __init__(self) -> None:
        self._batches: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._sizes: dict[str, int] = {}

    def receive(self, task: str, prediction: Tensor, target: Tensor) -> None:
        """Add a batch: prediction [B, outputs], target [B] or [B, size]."""
        rows = has_label(target)
        self._sizes[task] = self._sizes.get(task, 0) + prediction.numel()
        batches = self._batches.setdefault(task, [])
        if self._sizes[task] <= LARGEST:
            batches.append((prediction[rows].cpu(), target[rows].cpu()))
        else:
            batches.clear()

    def of(self, task: str) -> tuple[Tensor, Tensor] | None:
        """Predictions [n, outputs] and targets [n] or [n, size] of a task; None where nothing was kept."""
        batches = self._batches.get(task)
        if not batches:
            return None
        predictions, targets = zip(*batches, strict=True)
        return torch.cat(predictions), torch.cat(targets)


def replicates(kinds: Mapping[str, TaskKind], outputs: Outputs, resamples: int | None = None) -> Replicates:
    """Values of every metric on bootstrap samples of the examples (n out of n, with replacement).

    resamples: how many; None: 200, or fewer of large sets. The draws depend on n alone. Runs that are evaluated on the
    same examples in the same order therefore have the same resamples, and so do tasks on the same examples: differences
    of replicates are paired.
    """
    found: Replicates = {}
    for task, kind in kinds.items():
        if (kept := outputs.of(task)) is None:
            continue
        prediction, target = kept
        draws = np.random.default_rng(len(target))
        values: dict[str, list[float]] = {}
        for _ in range(resamples or min(MOST, max(FEWEST, BUDGET // target.numel()))):
            rows = torch.from_numpy(draws.integers(len(target), size=len(target)))
            metrics = kind.metrics(torch.device("cpu"))
            metrics.update(prediction[rows], target[rows])
            for name, value in metrics.compute().items():
                values.setdefault(name, []).append(value)
        found[task] = values
    return found


STEPS = 2  # the optimizer's state exists from the second one on


def step_memory(trainer: Trainer) -> float:
    """Peak bytes of tensors in training: parameters, gradients, optimizer state, activations, the batch.

    The libraries' own memory and the data are not part of it, so small models can be compared too. On a GPU, the
    allocator's peak over the whole run. On a CPU, the model's tensors and the allocations of two training steps with a
    new optimizer, counted by torch's profiler. The steps change the model: call this last. NaN on other devices.
    """
    run = trainer.run
    if run.device.type == "cuda":
        return float(peak_memory(run.device))
    if run.device.type != "cpu":
        return float("nan")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages on stderr
    from torch.profiler import ProfilerActivity, profile

    run.model.train()
    for parameter in run.model.parameters():
        parameter.grad = None
    held = _bytes(run.model.state_dict(), run.weighting.state_dict(), run.regularization.state_dict())
    batches = chain.from_iterable(trainer.state.loader.epoch(epoch) for epoch in range(STEPS * trainer.accumulate))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        step = Step(run, make_optimizer(run))
        for _ in range(STEPS):
            with suppress(DivergedError):  # without the schedule's warm-up a step may be too large
                step(list(islice(batches, trainer.accumulate)))
    return float(held + _peak(profiler))


def _peak(profiler: Any) -> int:
    """Largest sum of the allocations that were held at the same time, in bytes."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = largest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        largest = max(largest, held)
    return largest


def _bytes(*states: Any) -> int:
    """Bytes of the distinct storages in nested dicts and lists of tensors."""
    storages: dict[int, int] = {}
    waiting: list[Any] = list(states)
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return sum(storages.values())
