"""Construction of the sampler, with limits on the examples of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.data.samplers.base import Sampler

MakeSampler = Callable[[list[int]], Sampler]


def make_sampler(experiment: Experiment, sizes: Mapping[str, int]) -> Sampler:
    """Create the sampler of an experiment.

    Args:
        experiment: The experiment.
        sizes: alias → number of training examples.

    Returns:
        The sampler.
    """
    training, entry = experiment.training, experiment.training.sampling
    component = registry.samplers[entry.name]
    aliases = [list(sizes)] if getattr(component.target, "takes_aliases", False) else []

    def make(numbers: list[int]) -> Sampler:
        sampler: Sampler = component.create(numbers, training.batch_size, *aliases, **entry.options)
        return sampler

    if entry.limit is None:
        return make(list(sizes.values()))
    return limit_sampler(make, list(sizes.values()), entry.limits(sizes))


def limit_sampler(make: MakeSampler, sizes: Sequence[int], limits: Sequence[int | None]) -> Sampler:
    """Create a sampler whose epoch has at most a given number of examples of each dataset.

    The sampler is created for the sizes up to the limits. If it repeats a dataset beyond its limit, all sizes are
    reduced by the same factor, which shortens the epoch and keeps the proportions.

    Args:
        make: Creates the sampler for given sizes.
        sizes: Number of training examples of each dataset.
        limits: Maximum number of examples of each dataset in an epoch; None for no limit.

    Returns:
        The sampler.

    Raises:
        ValueError: The limits are too small for the proportions.
    """
    capped = [size if limit is None else min(size, limit) for size, limit in zip(sizes, limits, strict=True)]
    sampler, factor = make(capped), 1.0
    while (excess := _excess(sampler, limits)) > 1:
        factor /= excess
        scaled = [max(1, round(size * factor)) for size in capped]
        sampler = make(scaled)
        if max(scaled) == 1 and _excess(sampler, limits) > 1:
            raise ValueError("`limit` is too small: an epoch has at least one example of each dataset, on average")
    return sampler


def _excess(sampler: Sampler, limits: Sequence[int | None]) -> float:
    """Return the largest ratio of a dataset's amount in an epoch to its limit."""
    return max(n / limit if limit else 0.0 for n, limit in zip(sampler.amounts, limits, strict=True))
