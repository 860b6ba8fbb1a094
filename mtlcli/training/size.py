"""How large a model is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from mtlcli.models.model import MultiTaskModel
from mtlcli.specs import DatasetSpec


def size(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, int]:
    """Numbers of `shared_parameters` and of all `parameters`; `flops` of one example of every dataset.

    flops: floating-point operations, a multiplication and an addition being two. specs: of the datasets, by alias.
    """
    counts, device = model.count_parameters(), next(model.parameters()).device
    inputs = {alias: torch.zeros(1, *spec.input_shape, device=device) for alias, spec in specs.items()}
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs)
    model.train(training)
    return {"shared_parameters": counts["shared"], "parameters": counts["total"], "flops": counter.get_total_flops()}
