"""Between proportional and uniform."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mtlcli.data.samplers.base import EveryStepSampler
from mtlcli.registry import samplers


@samplers.register("temperature")
class Temperature(EveryStepSampler):
    """Each step takes from every dataset in proportion to size^(1/temperature).

    An epoch: as many examples as the datasets have together. Small datasets are repeated within it, large ones partly
    seen and gone on with in the next. From Arivazhagan et al., "Massively Multilingual Neural Machine Translation in
    the Wild" (2019), section 4.2; there a batch is drawn at random, here every step has the same shares.

    Options:
        temperature: 1 is `proportional`; the higher, the nearer to `uniform`.
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
