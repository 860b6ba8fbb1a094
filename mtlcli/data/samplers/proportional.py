"""Sampling in proportion to the datasets' sizes."""

from __future__ import annotations

from mtlcli.data.samplers.base import EveryStepSampler
from mtlcli.registry import samplers


@samplers.register("proportional")
class Proportional(EveryStepSampler):
    """Each step takes examples from every dataset in proportion to its size.

    An epoch contains every example of every dataset exactly once.

    Args:
        sizes: number of training examples of each dataset.
        batch_size: examples per dataset and step, on average over the datasets.
    """

    def pull(self) -> list[float]:
        return [float(size) for size in self.sizes]
