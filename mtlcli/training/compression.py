"""What the regularizers take out of the trained model, and what that saves and costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtlcli.training.run import Run


def compress(run: Run) -> dict[str, Any] | None:
    """Let the regularizers compress the run's model; None where none of them does.

    Otherwise a JSON document: `parameters` (`shared`, `total`), `trunk_parameters` and `flops` (of one example of every
    dataset through the whole model), each as {before, after}, and what each regularizer tells.
    """
    before = _size(run)
    reports = run.regularization.compress()
    if not reports:
        return None
    after = _size(run)
    return {**{key: {"before": before[key], "after": after[key]} for key in before}, "regularizers": reports}


def fit_ranks(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model's factorized layers the ranks that those in a state dict of it have."""
    for name, module in model.named_modules():
        if hasattr(module, "resize") and (factor := state.get(f"{name}.u")) is not None:
            module.resize(factor.shape[1])


def _size(run: Run) -> dict[str, int]:
    counts = run.model.count_parameters()
    return {"shared_parameters": counts["shared"], "parameters": counts["total"], "flops": flops(run)}


def flops(run: Run) -> int:
    """Floating-point operations (a multiplication and an addition are two) of one example of every dataset."""
    inputs = {alias: torch.zeros(1, *spec.input_shape, device=run.device) for alias, spec in run.specs.items()}
    training = run.model.training
    run.model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run.model(inputs)
    run.model.train(training)
    return int(counter.get_total_flops())
