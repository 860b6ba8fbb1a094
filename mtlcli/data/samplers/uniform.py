"""Every dataset alike."""

from __future__ import annotations

from mtlcli.data.samplers.base import EveryStepSampler
from mtlcli.registry import samplers


@samplers.register("uniform")
class Uniform(EveryStepSampler):
    """Each step takes the same number of examples from every dataset, whatever its size.

    An epoch: as many examples as the datasets have together, an equal share from each. A dataset smaller than that
    share is repeated within the epoch, a larger one partly seen and gone on with in the next.
    """

    def pull(self) -> list[float]:
        return [1.0] * len(self.sizes)
