"""Sampling at given rates."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from mtlcli.data.samplers.base import EveryStepSampler
from mtlcli.registry import samplers


@samplers.register("rates")
class Rates(EveryStepSampler):
    """Each step takes examples from every dataset in proportion to given rates.

    `sampling: {rates: {mnist: 2, digits: 1}}` is sufficient to select it. An epoch contains as many examples as the
    datasets have together (or as `limit` leaves of them), divided in proportion to the rates. A dataset smaller than
    its share is repeated within an epoch; a larger one is continued in the next.

    Args:
        sizes: number of training examples of each dataset.
        batch_size: examples per dataset and step, on average over the datasets.
        aliases: alias of each dataset.
        rates: rate of each dataset by alias, up to a common factor.

    Raises:
        ValueError: a dataset has no rate, or a rate is that of no dataset.
    """

    takes_aliases: ClassVar[bool] = True

    def __init__(
        self,
        sizes: list[int],
        batch_size: int,
        aliases: list[str],
        *,
        rates: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]],
    ) -> None:
        if set(rates) != set(aliases):
            raise ValueError(f"`rates` needs a rate of each dataset ({', '.join(aliases)}), got {', '.join(rates)}")
        self.rates = [rates[alias] for alias in aliases]
        super().__init__(sizes, batch_size)

    def pull(self) -> list[float]:
        return [rate / max(self.rates) for rate in self.rates]
