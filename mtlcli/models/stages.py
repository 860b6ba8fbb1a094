"""What each stage of a trunk gives, and which of its layers it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mtlcli.models.trunk import Trunk
from mtlcli.specs import Shape


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
