"""How large a model is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtlcli.models.model import MultiTaskModel
from mtlcli.specs import DatasetSpec


def size(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, int]:
    """Numbers of `shared_parameters` and of all `parameters`; `flops` of one example of every dataset."""
    counts, flops = model.count_parameters(), sum(flops_per_sample(model, specs).values())
    return {"shared_parameters": counts["shared"], "parameters": counts["total"], "flops": flops}


def flops_per_sample(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, int]:
    """alias → floating-point operations of a prediction for one example of the dataset, for all tasks on it.

    A multiplication and an addition are two. specs: of the datasets, by alias. The model may be on `meta`.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports triton

    found = {}
    training = model.training
    model.eval()
    for alias, blank in blank_inputs(model, specs).items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model({alias: blank})
        found[alias] = counter.get_total_flops()
    model.train(training)
    return found


def blank_inputs(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, Tensor]:
    """alias → a raw example of nothing but zeros, [1, …], on the model's device."""
    device = next(model.parameters()).device
    return {alias: torch.zeros(1, *spec.input_shape, device=device) for alias, spec in specs.items()}
