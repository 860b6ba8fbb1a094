"""One dataset a step."""

from __future__ import annotations

from mtlcli.data.samplers.base import Sampler, chunk
from mtlcli.registry import samplers


@samplers.register("round_robin")
class RoundRobin(Sampler):
    """Each step takes from one dataset, in turn.

    An epoch: as many examples from each dataset as the largest has, so the largest exactly once, the smaller ones
    repeated. It has D · ⌈largest / batch_size⌉ steps for D datasets; a step has at most `batch_size` examples, and
    the steps of an epoch differ by at most one. (With a batch size of 2, an odd number and batch norm, one step has 3.)
    """

    @property
    def rounds(self) -> int:
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
