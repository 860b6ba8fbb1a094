"""Mixtures of experts: all tasks use the same trunks, each in its own proportions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mtlcli.models.by_name import ByName
from mtlcli.models.experts import give_one_encoder, joined, parted, parts_of, run_stages
from mtlcli.models.gates import Gating, mixed, show
from mtlcli.models.sharing_base import MakeHead, MakeTrunk, Sharing
from mtlcli.models.trunk import Trunk
from mtlcli.specs import TrunkPass

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
        x, rows = joined({alias: inputs[alias] for alias in alias_of.values()})
        x = self._experts()[0].encoder(x)
        given = parted(x, rows)
        outputs = [parted(run_stages(expert, x), rows) for expert in self._experts()]
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
