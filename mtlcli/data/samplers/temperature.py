"""Sampling in proportion to a power of the datasets' sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mtlcli.data.samplers.base import EveryStepSampler
from mtlcli.registry import samplers


@samplers.register("temperature")
class Temperature(EveryStepSampler):
    """Each step takes examples from every dataset in proportion to size^(1/temperature).

    An epoch contains as many examples as the datasets have together. Small datasets are repeated within an epoch; large
    ones are continued in the next.

    Args:
        sizes: number of training examples of each dataset.
        batch_size: examples per dataset and step, on average over the datasets.
        temperature: 1 is `proportional`; the larger, the closer to `uniform`.

    References:
        Arivazhagan et al., "Massively Multilingual Neural Machine Translation in the Wild: Findings and Challenges",
        2019, arXiv:1907.05019, section 4.2.

    Note:
        In the paper each batch is drawn at random; here every step has the same shares.
    """

    def __init__(
        self,
        sizes: list[int],
        batch_size: int,
        *,
        temperature: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0,
    ) -> None:
        self.temperature = temperature
        super().__init__(sizes, batch_size)

    def pull(self) -> list[float]:
        return [(size / max(self.sizes)) ** (1 / self.temperature) for size in self.sizes]
