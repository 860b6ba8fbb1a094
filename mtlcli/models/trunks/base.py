"""What every trunk is: a chain of named stages from an input to a feature vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mtlcli.specs import Shape


class Trunk(nn.Module, ABC):
    """Base of the trunks: [B, *input_shape] → [B, features].

    of_columns: whether it takes a table's raw columns. The builder then supplies these, a tuple of `Column`, in place
        of the input shape; any other trunk is given numbers, of which the model makes a table's columns.
    encoder: what turns an example's raw columns into numbers before the first stage; nothing but for tables. Sharings
        with several trunks for the same examples may give them one.
    features: width of the output, set by the subclass.
    input_shape: of one example, set by the builder.
    frozen: whether the trunk is kept as it is: see `warm_start.freeze`.
    """

    of_columns: ClassVar[bool] = False
    encoder: nn.Module
    features: int
    input_shape: Shape
    frozen = False

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()

    @abstractmethod
    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The chain in order: a name for each stage's activation → the stage. The trunk is encoder, then these.

        A stage doesn't change its input in place: it is the activation of the stage before.
        """

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        for stage in self.stages().values():
            x = stage(x)
        return x

    def activation_names(self) -> list[str]:
        """The activations there are by name, in order."""
        return list(self.stages())

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The features, and the activations named, in the trunk's order. ValueError for a name there isn't."""
        wanted, found = self.known(names), {}
        x = self.encoder(x)
        for name, stage in self.stages().items():
            x = stage(x)
            if name in wanted:
                found[name] = x
        return x, found

    def known(self, names: Iterable[str]) -> set[str]:
        """`names` as a set. ValueError, with the names there are, for one that names no activation."""
        wanted, there = set(names), self.activation_names()
        if unknown := wanted.difference(there):
            raise ValueError(f"no activation {', '.join(sorted(unknown))}; there are: {', '.join(there)}")
        return wanted

    def train(self, mode: bool = True) -> Self:
        """A frozen trunk stays in evaluation mode: dropout is off, and batch norm keeps its statistics."""
        return super().train(mode and not self.frozen)


@dataclass(frozen=True)
class Stage:
    """One stage of a trunk.

    shape: of its activation, without the batch. layers: names within the trunk of the modules that it calls and that
    have parameters of their own.
    """

    shape: Shape
    layers: frozenset[str]


def stages_of(trunk: Trunk) -> dict[str, Stage]:
    """Name → stage, in order, seen as a blank example passes them on the trunk's device, which may be `meta`.

    It leaves the trunk as it was, and draws no random number: it passes in evaluation mode. ValueError where the trunk
    can't take an example of its `input_shape`.
    """
    device = next(trunk.parameters()).device
    x = torch.zeros(1, *trunk.input_shape, device=device)
    training = trunk.training
    trunk.eval()
    found: dict[str, Stage] = {}
    try:
        with torch.no_grad():
            x = trunk.encoder(x)
            for name, stage in trunk.stages().items():
                with _called(trunk) as layers:
                    x = stage(x)
                found[name] = Stage(tuple(x.shape[1:]), frozenset(layers))
    except RuntimeError as error:  # how torch says that shapes don't fit
        raise ValueError(f"the trunk can't take the datasets' inputs: {error}") from error
    finally:
        trunk.train(training)
    return found


def key(stage: str) -> str:
    """The name of a module that belongs to the stage: none has a dot in it, as the stages of some trunks have."""
    return stage.replace(".", "-")


@contextmanager
def _called(trunk: nn.Module) -> Iterator[set[str]]:
    """The names of the modules with parameters that are called in the block."""
    names: set[str] = set()

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: names.add(name)

    owners = [(name, module) for name, module in trunk.named_modules() if module._parameters]
    handles = [module.register_forward_pre_hook(note(name)) for name, module in owners]
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()
