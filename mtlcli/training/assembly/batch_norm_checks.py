"""Checks that every batch is accepted by the model's batch norm."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import nn

from mtlcli.data.samplers.base import Sampler
from mtlcli.errors import ConfigError
from mtlcli.training.run import Run

SMALLEST = 2  # examples of a dataset per step if the model has batch norm
NOMINAL = 1000  # examples of a dataset whose size is not known yet
MOST_TRIED = 16  # combinations of batch sizes
BATCH_NORM_REFUSAL = "Expected more than 1 value per channel"  # from torch's message


def nominal_sampler(run: Run) -> Sampler:
    """Return the sampler for datasets of equal, large size, for checks that do not read the data."""
    return run.make_sampler(dict.fromkeys(run.specs, NOMINAL))


def check_batch_norm(run: Run, sampler: Sampler) -> None:
    """Check that every batch of a sampler is accepted by the model's batch norm in training mode.

    Batch norm needs more than one value per channel, so it rejects a single example whose maps are 1×1. The check
    passes blank batches through the model on `meta`, of the sizes of steps with a single example of a dataset.

    Args:
        run: The run, whose model has batch norm.
        sampler: The sampler of its batches.

    Raises:
        ConfigError: If a batch is rejected.
    """
    combinations = {tuple(stop - start for start, stop in sampler.take(step)) for step in range(sampler.steps)}
    for counts in sorted(c for c in combinations if 1 in c)[:MOST_TRIED]:
        sizes = dict(zip(run.specs, counts, strict=True))
        if not _refuses(run, {alias: count for alias, count in sizes.items() if count}):
            continue
        single = [alias for alias, count in sizes.items() if count == 1]
        what = f"a step uses a single example of {' and '.join(f'dataset {alias!r}' for alias in single)}, and batch "
        what += "norm needs more than one value per channel in training. "
        if sampler.batch_size < SMALLEST:
            remedy = f"Set it to {SMALLEST} or more, or use a trunk without batch norm"
            raise ConfigError(run.experiment.problem("training.batch_size", what + remedy))
        raise ConfigError(
            run.experiment.problem(
                f"datasets.{single[0]}",
                f"{what}Add training examples, or repeat them by training.sampling: uniform (training.batch_size is "
                f"{sampler.batch_size}), or use a trunk without batch norm",
            )
        )


def _refuses(run: Run, sizes: Mapping[str, int]) -> bool:
    """Return whether batch norm rejects batches with these numbers of examples."""
    model: nn.Module = run.model
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    blank = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    inputs = {
        alias: one.expand(n, *one.shape[1:]).to("meta")
        for alias, one in run.blank_inputs().items()
        if (n := sizes.get(alias))
    }
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            torch.func.functional_call(model, blank, (inputs,))
    except ValueError as error:
        return BATCH_NORM_REFUSAL in str(error)
    except Exception:  # other checks report it
        return False
    return False
