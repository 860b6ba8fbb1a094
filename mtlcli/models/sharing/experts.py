"""Trunks as experts: several of them for the same examples, whole or cut into consecutive parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mtlcli.models.modules import ByName
from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing, SharingStats, concat_datasets, split_datasets
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import TrunkPass


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


class Gating(NamedTuple):
    """What a gate says of n examples and E experts; n is 1 where it says the same of all.

    weights: [n, E], each ≥ 0. selectors: [n, k, E], the k distributions over the experts that they are a mean of, which
    the regularizer `gate_entropy` looks at.
    """

    weights: Tensor
    selectors: Tensor


class SoftmaxGate(nn.Module):
    """softmax(W x), or softmax(W x + b) with a bias: [n, …], flattened to [n, D], → weights [n, E] that sum to 1.

    Computed in float32 at least, in every precision: eight bits would make the weights' sum wrong by half a percent.
    """

    def __init__(self, inputs: int, experts: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, experts, bias=bias)

    def forward(self, x: Tensor) -> Gating:
        weights = at_least_float32(self.linear(x.flatten(1))).softmax(1)
        return Gating(weights, weights.unsqueeze(1))


def mixed(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Σ_e weights_e · outputs_e: weights [n or 1, E], each output [n, …] → [n, …], laid out as the outputs are."""
    columns = weights.view(*weights.shape, *(1 for _ in outputs[0].shape[1:])).unbind(1)
    total = columns[0] * outputs[0]
    for column, output in zip(columns[1:], outputs[1:], strict=True):
        total = total + column * output
    return total


def show(watch: SharingStats, owner: str, names: Sequence[str], weights: Tensor, examples: int) -> None:
    """Tell the mean weight of each expert. names: of the experts; weights: [n or 1, E]; examples: that have them."""
    for name, weight in zip(names, weights.mean(0).unbind(), strict=True):
        watch.add(owner, name, weight, examples)


def at_least_float32(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


MakeGate = Callable[[int], nn.Module]


class Mixture(Sharing):
    """Base of the sharings whose experts are trunks: a head is given f(x) = Σ_e g_e(x) expert_e(x), [B, features].

    Each example passes each expert once, whatever the number of its tasks, and all datasets go through an expert
    together, as under hard sharing. A gate g is given the example as the first stages are: normalized, through the
    trunk's encoder, of which there is one for all experts, and flattened.

    experts: how many. make_gate: makes a gate (module: [n, …] → `Gating`) for inputs of so many numbers.
    A subclass says by `gate_of` which gate is a task's.
    """

    gated = True

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        experts: int,
        make_gate: MakeGate,
    ) -> None:
        super().__init__(make_trunk, make_head, inputs)
        trunks = [make_trunk() for _ in range(experts)]
        (whole,) = parts_of(trunks[0], 1)
        give_one_encoder(trunks)
        self.gates = ByName({name: make_gate(whole.inputs) for name in dict.fromkeys(map(self.gate_of, inputs))})
        self.experts = nn.ModuleList(trunks)
        self.heads.update({task: make_head(task, trunks[0].features) for task in inputs})

    @abstractmethod
    def gate_of(self, task: str) -> str:
        """The name of a task's gate."""

    def trunks(self) -> dict[str, Trunk]:
        return {f"expert{at}": trunk for at, trunk in enumerate(self._experts())}

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """See `Sharing`. `seen` takes in the selectors of the gates."""
        alias_of = {task: self.inputs[task] for task in tasks}
        if not alias_of:
            return {}
        x, rows = concat_datasets({alias: inputs[alias] for alias in alias_of.values()})
        x = self._experts()[0].encoder(x)
        given = split_datasets(x, rows)
        outputs = [split_datasets(run_stages(expert, x), rows) for expert in self._experts()]
        made: dict[tuple[str, str], tuple[Gating, Tensor]] = {}  # by gate and dataset: tasks may have both in common
        found: dict[str, Tensor] = {}
        for task, alias in alias_of.items():
            place = self.gate_of(task), alias
            if place not in made:
                gating: Gating = self.gates[place[0]](given[alias])
                made[place] = gating, mixed(gating.weights, [output[alias] for output in outputs])
            gating, found[task] = made[place]
            if self.watch is not None:
                show(self.watch, task, list(self.trunks()), gating.weights, rows[alias])
        if seen is not None:
            said: dict[str, list[Tensor]] = {}
            for (name, _), (gating, _) in made.items():
                said.setdefault(name, []).append(gating.selectors)
            seen.append(TrunkPass(rows, {}, selectors={name: torch.cat(parts) for name, parts in said.items()}))
        return found

    def _experts(self) -> list[Trunk]:
        return cast("list[Trunk]", list(self.experts))


class GatePerTask(Mixture):
    """Base of the mixtures in which each task has a gate of its own: it belongs to the task, as its head does."""

    def gate_of(self, task: str) -> str:
        return task

    def own_modules(self, task: str) -> list[nn.Module]:
        return [*super().own_modules(task), self.gates[task]]
