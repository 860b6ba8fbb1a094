"""Numbers of examples that an epoch takes from each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from mtlcli.data.samplers.base import Sampler
from mtlcli.text import format_number


class EpochAmount(TypedDict):
    """Examples that an epoch takes from a dataset.

    Attributes:
        examples: number of examples in an epoch, repeated ones included.
        size: number of training examples of the dataset.
        passes: `examples` divided by `size`.
    """

    examples: int
    size: int
    passes: float


def epoch_amounts(sampler: Sampler, sizes: Mapping[str, int]) -> dict[str, EpochAmount]:
    """Return what an epoch takes from each dataset.

    Args:
        sampler: the sampler, for the datasets in this order.
        sizes: alias → number of training examples.

    Returns:
        Alias → amount.
    """
    pairs = zip(sizes.items(), sampler.amounts, strict=True)
    return {alias: EpochAmount(examples=n, size=size, passes=n / size) for (alias, size), n in pairs}


def describe_epoch(amounts: Mapping[str, EpochAmount]) -> str | None:
    """Describe an epoch, such as `20,599 examples of mnist (0.343 passes), 1,797 of digits (one pass)`.

    Args:
        amounts: alias → amount, see `epoch_amounts`.

    Returns:
        The description; None if an epoch is one pass over each dataset.
    """
    if all(amount["examples"] == amount["size"] for amount in amounts.values()):
        return None
    return ", ".join(
        f"{amount['examples']:,}{'' if at else ' examples'} of {alias} ({_passes(amount)})"
        for at, (alias, amount) in enumerate(amounts.items())
    )


def _passes(amount: EpochAmount) -> str:
    once = amount["examples"] == amount["size"]
    return "one pass" if once else f"{format_number(amount['passes'], 3)} passes"
