"""Trunks as experts: several of them for the same examples, whole or cut into consecutive parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.models.trunk import Trunk


def joined(inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, int]]:
    """The examples of all datasets in one batch, and alias → how many of the rows are its, in their order."""
    rows = {alias: x.shape[0] for alias, x in inputs.items()}  # len() would fix it in an exported program
    return (next(iter(inputs.values())) if len(inputs) == 1 else torch.cat(list(inputs.values()))), rows


def parted(x: Tensor, rows: Mapping[str, int]) -> dict[str, Tensor]:
    """alias → its rows of x: the opposite of `joined`."""
    return dict(zip(rows, [x] if len(rows) == 1 else torch.split(x, list(rows.values())), strict=True))


def give_one_encoder(trunks: Sequence[Trunk]) -> None:
    """Leave the first trunk's encoder, which is then to be called once for all of them, and take out the others'."""
    for trunk in trunks[1:]:
        trunk.encoder = nn.Identity()


def run_stages(trunk: Trunk, x: Tensor, start: int = 0, end: int | None = None) -> Tensor:
    """What the trunk's stages from `start` to before `end` make of x, which is encoded already."""
    for stage in list(trunk.stages().values())[start:end]:
        x = stage(x)
    return x


@dataclass(frozen=True)
class Part:
    """Consecutive stages of a trunk.

    start, end: of the stages. inputs: numbers in what an example gives it. modules: paths of those with weights that
    only this part calls, none inside another; `get_submodule` finds what is there, also after a layer was replaced.
    """

    start: int
    end: int
    inputs: int
    modules: tuple[str, ...]


@torch.no_grad()
def parts_of(trunk: Trunk, count: int) -> list[Part]:
    """The trunk's chain cut into `count` parts of as many stages each; where that doesn't go, the later ones have more.

    Found out with one blank example, in evaluation mode: it draws no random numbers and leaves statistics alone; may be
    on `meta`. ValueError where there are fewer stages.
    """
    names = list(trunk.stages())
    if count > len(names):
        raise ValueError(
            f"levels: the trunk has {len(names)} stage{'s' * (len(names) > 1)} ({', '.join(names)}) to be cut into "
            f"levels, so {len(names)} at most, got {count}. Give it more layers, or use fewer levels"
        )
    bounds = [len(names) * at // count for at in range(count + 1)]
    called: list[set[str]] = [set() for _ in range(count)]
    at = 0

    def note(name: str) -> Any:
        return lambda module, arguments: called[at].update(_subtree(trunk, name))

    modules = [(name, module) for name, module in trunk.named_modules() if name and module.state_dict()]
    handles = [module.register_forward_pre_hook(note(name)) for name, module in modules]
    was_training = trunk.training
    trunk.eval()
    try:
        device = next((parameter.device for parameter in trunk.parameters()), None)
        x = trunk.encoder(torch.zeros(1, *trunk.input_shape, device=device))
        called[0].clear()  # the encoder is no part
        widths = []
        for at in range(count):
            widths.append(x.numel())
            x = run_stages(trunk, x, bounds[at], bounds[at + 1])
    finally:
        trunk.train(was_training)
        for handle in handles:
            handle.remove()
    found = []
    for at in range(count):
        others = _subtree(trunk, "encoder").union(*called[:at], *called[at + 1 :])
        found.append(Part(bounds[at], bounds[at + 1], widths[at], _outermost(called[at], others)))
    return found


def _subtree(trunk: Trunk, name: str) -> set[str]:
    """The paths of a module and of all in it."""
    return {".".join(filter(None, [name, inner])) for inner, _ in trunk.get_submodule(name).named_modules()}


def _outermost(called: set[str], others: set[str]) -> tuple[str, ...]:
    """Of the modules in `called`, those that are in no other such one; none that is, or holds, one of `others`."""
    shut = {".".join(path[:depth]) for path in (name.split(".") for name in others) for depth in range(len(path) + 1)}
    own = called - shut
    parents = {name: [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)] for name in own}
    return tuple(sorted(name for name in own if not own.intersection(parents[name])))
