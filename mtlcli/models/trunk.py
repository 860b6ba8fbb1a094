"""What every trunk is: a chain of named stages from an input to a feature vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from torch import Tensor, nn


class Trunk(nn.Module, ABC):
    """Base of the trunks: [B, *input_shape] → [B, features].

    features: width of the output, set by the subclass.
    """

    features: int

    @abstractmethod
    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The chain in order: a name for each stage's activation → the stage. Their composition is the trunk."""

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages().values():
            x = stage(x)
        return x

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The features, and the activations of the stages named. ValueError for a name that is no stage."""
        stages, wanted, found = self.stages(), set(names), {}
        if unknown := wanted - stages.keys():
            raise ValueError(f"no activation {', '.join(sorted(unknown))}; there are: {', '.join(stages)}")
        for name, stage in stages.items():
            x = stage(x)
            if name in wanted:
                found[name] = x
        return x, found
