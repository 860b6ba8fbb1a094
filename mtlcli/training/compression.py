"""What the regularizers take out of the trained model, and what that saves and costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mtlcli.regularizers.factorized import Factorized
from mtlcli.training.run import Run
from mtlcli.training.size import size


def compress(run: Run) -> dict[str, Any] | None:
    """Let the regularizers compress the run's model; None where none of them does.

    Otherwise a JSON document: `shared_parameters`, `parameters` (of the whole model) and `flops`, each {before, after},
    where `before` is the model without regularizers, and what each regularizer tells.
    """
    reports = run.regularization.compress()
    if not reports:
        return None
    before, after = run.size, size(run.model, run.specs)
    return {**{key: {"before": before[key], "after": after[key]} for key in before}, "regularizers": reports}


def fit_ranks(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model's factorized layers the ranks that those in a state dict of it have, if they can have them."""
    for name, module in model.named_modules():
        if isinstance(module, Factorized) and (factor := state.get(f"{name}.u")) is not None:
            full = min(module.shape[0], module.shape[1:].numel())
            module.resize(factor.shape[1] if factor.dim() == 2 and factor.shape[1] <= full else module.rank)
