"""Memory that training steps allocate."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import chain, islice
from typing import Any

from torch import Tensor

from mtlcli.training.device import peak_memory
from mtlcli.training.divergence import DivergedError
from mtlcli.training.optimization import make_optimizer
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer

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
    batches = chain.from_iterable(trainer.loader.epoch(epoch) for epoch in range(STEPS * trainer.accumulate))
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
