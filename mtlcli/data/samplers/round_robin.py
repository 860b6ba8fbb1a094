"""Sampling from one dataset per step, in turn."""

from __future__ import annotations

from mtlcli.data.samplers.base import Sampler, chunk
from mtlcli.registry import samplers


@samplers.register("round_robin")
class RoundRobin(Sampler):
    """Each step takes examples from one dataset, in turn.

    An epoch contains as many examples of each dataset as the largest one has: each example of the largest exactly once,
    those of smaller ones repeatedly. For D datasets it has D · ⌈largest / batch_size⌉ steps of at most `batch_size`
    examples, whose sizes differ by at most one. (With batch norm, a batch size of 2 and an odd number of examples, one
    step has 3.)

    Args:
        sizes: number of training examples of each dataset.
        batch_size: maximum number of examples in a step.
    """

    @property
    def rounds(self) -> int:
        """Steps of each dataset in an epoch."""
        return min(-(-max(self.sizes) // self.batch_size), self.most_chunks(max(self.sizes)))

    @property
    def steps(self) -> int:
        return len(self.sizes) * self.rounds

    @property
    def amounts(self) -> list[int]:
        return [max(self.sizes)] * len(self.sizes)

    def take(self, step: int) -> list[tuple[int, int]]:
        turn, which = divmod(step, len(self.sizes))
        start, stop = chunk(max(self.sizes), self.rounds, turn)
        return [(start, stop if index == which else start) for index in range(len(self.sizes))]
