"""Every dataset in proportion to its size."""

from __future__ import annotations

from mtlcli.data.samplers.base import EveryStepSampler
from mtlcli.registry import samplers


@samplers.register("proportional")
class Proportional(EveryStepSampler):
    """Each step takes from every dataset in proportion to its size.

    An epoch: every example of every dataset exactly once.
    """

    def pull(self) -> list[float]:
        return [float(size) for size in self.sizes]
