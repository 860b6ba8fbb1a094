"""Sampling of the same number of examples from every dataset."""

from __future__ import annotations

from mtlcli.data.samplers.base import EveryStepSampler
from mtlcli.registry import samplers


@samplers.register("uniform")
class Uniform(EveryStepSampler):
    """Each step takes the same number of examples from every dataset, whatever its size.

    An epoch contains as many examples as the datasets have together, an equal share from each. A dataset smaller than
    its share is repeated within an epoch; a larger one is continued in the next.

    Args:
        sizes: number of training examples of each dataset.
        batch_size: examples per step from each dataset.
    """

    def pull(self) -> list[float]:
        return [1.0] * len(self.sizes)
